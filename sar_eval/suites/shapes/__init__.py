"""The demo world: images of plain coloured shapes, small enough to learn and to judge on a CPU.

GenEval in miniature: the same metadata schema, the same six tasks, the same ten colours.
`vocabulary` has the names and the combinations held out of training, `suite` samples prompts,
`scenes` samples layouts, `render` draws them, `detect` finds the shapes in an image, and
`questions` builds DPG-style question graphs.
"""

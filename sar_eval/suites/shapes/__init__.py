"""The demo world: images of plain coloured shapes, small enough to learn and to judge on a CPU.

It is GenEval in miniature: the same metadata schema, the same six tasks, the same ten colours.
`vocabulary` holds the names and what is held out of training, `scenes` samples layouts,
`render` turns a layout into pixels, `detect` finds the shapes in them again,
`questions` asks about them as DPG does.
"""

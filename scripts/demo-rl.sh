#!/bin/sh
# Reinforcement learning from a clone to a paired comparison: about ten minutes on two CPU cores.
# A step whose result is there is skipped; training that was interrupted goes on by itself.
set -eu
work=${1:-runs/demo-rl}
start=demo:sft-short
mkdir -p "$work"

scored() { test -f "$2/summary.json" || sar-eval run shapes --ckpt "$1" --out "$2"; }

scored "$start" "$work/before"
test -f "$work/grpo/sar_eval.json" || sar-eval train grpo shapes --ckpt "$start" --out "$work/grpo"
scored "$work/grpo" "$work/after"
sar-eval compare "$work/before" "$work/after" --out "$work/compare.html"
echo "training   $work/grpo/training.html"
echo "comparison $work/compare.html"

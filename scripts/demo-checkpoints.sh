#!/bin/sh
# Make the demo checkpoints from nothing: about an hour on two CPU cores.
# A step whose result is there is skipped; a training step that was interrupted goes on by itself.
#
#     sh scripts/demo-checkpoints.sh [FOLDER [KIND]]      KIND of tokenizer: local (as shipped) or factored
set -eu
work=${1:-build/demo}
kind=${2:-local}
export OMP_WAIT_POLICY=PASSIVE
mkdir -p "$work"
cd "$work"

scenes() { test -d "scenes-$1" || sar-eval train scenes --out "scenes-$1" --number "$2" --seed "$3" --style "$4"; }
tokens() { test -f "tokens-$1/manifest.json" || sar-eval train tokenize --data "scenes-$1" --tokenizer tokenizer --out "tokens-$1"; }
finished() { test -f "$1/sar_eval.json"; }

kind_of() { if grep -q '"kind": "factored"' "$1/config.json"; then echo factored; else echo local; fi; }
if test -f tokenizer/decoder.jit && test "$(kind_of tokenizer)" != "$kind"; then
    echo "$work has a $(kind_of tokenizer) tokenizer, not a $kind one: name another folder" >&2
    exit 2
fi

scenes tok-clean 20000 11 clean
scenes tok-grainy 20000 12 grainy
scenes tok-tidy 20000 13 tidy
scenes noisy 100000 21 noisy
scenes tidy 80000 22 tidy
scenes short 20000 22 tidy
test -f tokenizer/decoder.jit || sar-eval train tokenizer --kind "$kind" \
    --data scenes-tok-clean --data scenes-tok-grainy --data scenes-tok-tidy --out tokenizer --steps 4000
tokens noisy
tokens tidy
tokens short
finished pretrain || sar-eval train run demo-pretrain --data tokens-noisy --tokenizer tokenizer --out pretrain
finished sft || sar-eval train run demo-sft --ckpt pretrain --data tokens-tidy --tokenizer tokenizer --out sft
finished sft-short || sar-eval train run demo-sft-short --ckpt pretrain --data tokens-short --tokenizer tokenizer --out sft-short
echo "checkpoints in $work: copy tokenizer, pretrain, sft and sft-short to sar_eval/demo to ship them"

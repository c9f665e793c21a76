#!/bin/sh
# Make the demo checkpoints from nothing: about an hour and a half on two CPU cores.
# A step whose result is there is skipped; a training step that was interrupted goes on by itself.
set -eu
work=${1:-build/demo}
export OMP_WAIT_POLICY=PASSIVE
mkdir -p "$work"
cd "$work"

scenes() { test -d "scenes-$1" || sar-eval train scenes --out "scenes-$1" --number "$2" --seed "$3" --style "$4"; }
tokens() { test -d "tokens-$1" || sar-eval train tokenize --data "scenes-$1" --tokenizer tokenizer --out "tokens-$1"; }
finished() { test -f "$1/sar_eval.json"; }

scenes tok-clean 20000 11 clean
scenes tok-noisy 20000 12 noisy
scenes noisy 200000 21 noisy
scenes tidy 50000 22 tidy
scenes detailed 60000 23 detailed
scenes ordered-a 25000 24 ordered
scenes ordered-b 25000 25 ordered
test -f tokenizer/decoder.jit || sar-eval train tokenizer \
    --data scenes-tok-clean --data scenes-tok-noisy --out tokenizer --steps 3000
tokens noisy
tokens tidy
tokens detailed
tokens ordered-a
tokens ordered-b
finished pretrain || sar-eval train pretrain --data tokens-noisy --tokenizer tokenizer --out pretrain \
    --steps 4000 --stop-at 2000
finished base || sar-eval train sft --ckpt pretrain --data tokens-tidy --tokenizer tokenizer --out base \
    --steps 3500 --stop-at 1000 --learning-rate 1.5e-3
finished colors || sar-eval train sft --ckpt base --data tokens-detailed --tokenizer tokenizer --out colors \
    --steps 2600 --learning-rate 1.5e-3
finished sft || sar-eval train sft --ckpt colors --data tokens-ordered-a --data tokens-ordered-b \
    --tokenizer tokenizer --out sft --steps 2000 --learning-rate 1.5e-3
echo "checkpoints in $work: copy tokenizer, pretrain and sft to sar_eval/demo to ship them"

// Two compared runs: each image of one beside that of the other, by prompt and index. Rows are numbered as in the run
// with most images of each prompt, which is `index`; a row of a run with fewer may have no image there.

const CHANGES = ["won", "lost", "right", "wrong", "same", "none"];
const NOT_DRAWN = { src: "", full: "", size: null, state: "none", score: null, reason: "", leftOut: false };

let comparison = null; // {letters of runs with images, labels, pairs: [first, second, whether the same seeds]}
const runs = new Map(); // what `readIndex` gives, by letter
let pair = null; // {first, second, kinds, gains, isScored}: letters, and by row a place in CHANGES, second - first

function labelOf(letter) {
  return comparison.labels.find(([own]) => own === letter)[1];
}

// The row's number in a run, or -1 if the run has fewer images of each prompt.
function numberIn(run, row) {
  const position = row % index.imagesPerPrompt;
  if (position >= run.imagesPerPrompt) return -1;
  return Math.floor(row / index.imagesPerPrompt) * run.imagesPerPrompt + position;
}

function scoreIn(run, row) {
  const number = numberIn(run, row);
  if (number < 0) return NaN;
  const state = run.states[number] & 3;
  return state === 0 ? 1 : state === 1 ? 0 : state === 2 ? run.scores[number] : NaN;
}

function kindOf(gain, score, isScored) {
  if (Number.isNaN(gain)) return 5;
  if (gain !== 0) return gain > 0 ? 0 : 1;
  if (isScored) return 4;
  return score > 0 ? 2 : 3;
}

function makePair(first, second) {
  const [one, other] = [runs.get(first), runs.get(second)];
  const isScored = Boolean(one.scores || other.scores);
  const [kinds, gains] = [new Uint8Array(index.rows), new Float32Array(index.rows)];
  for (let row = 0; row < index.rows; row++) {
    const score = scoreIn(other, row);
    gains[row] = score - scoreIn(one, row);
    kinds[row] = kindOf(gains[row], score, isScored);
  }
  return { first, second, kinds, gains, isScored };
}

function withPairs(family, rows, action) {
  const numbers = (letter) => rows.map((row) => numberIn(runs.get(letter), row)).filter((number) => number >= 0);
  const [first, second] = [pair.first, pair.second];
  withRows(family, numbers(first), () => withRows(family, numbers(second), action, runs.get(second)), runs.get(first));
}

// What one run has of a row; its file must be here.
function readSide(letter, row) {
  const run = runs.get(letter);
  const number = numberIn(run, row);
  if (number >= 0) return readRow(number, run);
  return { ...NOT_DRAWN, problem: `${letter} has ${run.imagesPerPrompt} images of each prompt` };
}

function readSideDetails(letter, row) {
  const number = numberIn(runs.get(letter), row);
  return number < 0 ? null : readDetails(number, runs.get(letter));
}

// The image of a row in the run that has it: for its key and prompt.
function readOwn(row) {
  return [pair.first, pair.second].map((letter) => readSide(letter, row)).find((image) => image.key);
}

function hasPicture(row) {
  return [pair.first, pair.second].some((letter) => {
    const picture = runs.get(letter).pictures.get(numberIn(runs.get(letter), row));
    return Boolean(picture && picture.src);
  });
}

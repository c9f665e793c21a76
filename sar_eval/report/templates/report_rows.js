"use strict";
// The run's rows. What filters need of each is always here; prompts, verdicts and evidence are inside the page
// or, for a large run, in files beside it, which script elements load when they are shown: a page opened from
// disk may not fetch. Everything in them is untrusted text.

const FILES_KEPT = { rows: 400, details: 8 }; // of a large run, in memory; the least recently used go first
const LOADS_AT_ONCE = 8;
const SIBLINGS = 64; // of a prompt with more images, those around this one

const $ = (id) => document.getElementById(id);
const source = JSON.parse($("data").textContent);
const files = new Map(); // by name: {kind: [[first, payload]...]}, least recently used first
const loading = new Map(); // promises by file name
let index = null;

window.reportData = (stamp, file, kind, first, payload) => {
  if (stamp !== source.stamp) return;
  if (!files.has(file)) files.set(file, new Map());
  const calls = files.get(file);
  if (!calls.has(kind)) calls.set(kind, []);
  calls.get(kind).push([first, payload]);
};

// `of` is the run that a row is of, on a page of several.
function fileName(family, row, of = index) {
  return `${of.prefix}${family}-${String(Math.floor(row / of.rowsPerFile)).padStart(6, "0")}`;
}

function lastFile() {
  return Math.ceil(index.rows / index.rowsPerFile) - 1;
}

function addScript(file) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${source.folder}/${file}.js`;
    script.onload = () => {
      script.remove();
      if (files.has(file)) resolve();
      else reject(new Error(`${source.folder}/${file}.js belongs to another report: write the report again.`));
    };
    script.onerror = () => {
      script.remove();
      reject(new Error(`${source.folder}/${file}.js is missing: keep that folder beside this page.`));
    };
    document.head.append(script);
  });
}

function loadFile(file) {
  if (files.has(file)) return Promise.resolve();
  if (!loading.has(file)) loading.set(file, addScript(file).finally(() => loading.delete(file)));
  return loading.get(file);
}

function dropOldFiles(family) {
  const names = [...files.keys()].filter((name) => name.includes(`${family}-`));
  for (const name of names.slice(0, Math.max(0, names.length - FILES_KEPT[family]))) files.delete(name);
}

// Calls `action` when the rows' files are here: at once if they already are.
function withRows(family, rows, action, of = index) {
  const needed = [...new Set(rows.map((row) => fileName(family, row, of)))];
  for (const name of needed) {
    if (!files.has(name)) continue;
    const calls = files.get(name); // now the most recently used
    files.delete(name);
    files.set(name, calls);
  }
  if (needed.every((name) => files.has(name))) {
    action();
    return;
  }
  Promise.all(needed.map(loadFile)).then(() => {
    withRows(family, rows, action, of);
    dropOldFiles(family);
  }, showLoadError);
}

function showLoadError(error) {
  $("load-error").hidden = false;
  $("load-error").textContent = error.message;
}

function entries(file, kind) {
  return (files.get(file) && files.get(file).get(kind)) || [];
}

// The last value for a row among sparse calls, whose payloads are lists [row, ...values].
function sparse(file, kind, row) {
  let found = null;
  for (const [, lines] of entries(file, kind)) found = lines.findLast((line) => line[0] === row) || found;
  return found;
}

function dense(file, kind, position) {
  const [first, lines] = entries(file, kind)[0];
  return lines[position - first];
}

const STATE_NAMES = ["pass", "fail", "scored", "none"];

function stateOf(row, of = index) {
  return STATE_NAMES[of.states[row] & 3];
}

function problemOf(row, of, generation, verdict, picture) {
  if (generation) return generation[1];
  if (!(of.states[row] & 64)) return "not generated";
  if (picture && picture.problem) return picture.problem;
  if (verdict) return verdict[3];
  return of.isJudged ? "not judged" : null;
}

// What a card shows; its file must be here.
function readRow(row, of = index) {
  const file = fileName("rows", row, of);
  const prompt = Math.floor(row / of.imagesPerPrompt);
  const [id, text] = dense(file, "prompts", prompt);
  const position = row % of.imagesPerPrompt;
  const verdict = sparse(file, "verdicts", row);
  const picture = of.pictures.get(row);
  const [task, split] = [of.taskNames[of.tasks[prompt] - 1], of.splitNames[of.splits[prompt] - 1]];
  return {
    number: row,
    key: `${id}/${position}`,
    index: position,
    prompt: { number: prompt, text, task: task || "", split: split || "" },
    state: stateOf(row, of),
    score: verdict ? verdict[1] : null,
    reason: (verdict && verdict[2]) || "",
    problem: problemOf(row, of, sparse(file, "problems", row), verdict, picture),
    src: picture ? picture.src : "",
    full: picture ? picture.full : "",
    size: picture ? picture.size : null,
    // There is an image in the run, but not beside this page.
    leftOut: !picture && Boolean(of.states[row] & 128),
  };
}

// What the large view shows besides.
function readDetails(row, of = index) {
  const file = fileName("details", row, of);
  const [seed, seconds, outOfRange] = dense(file, "details", row);
  const evidence = sparse(file, "evidence", row);
  const checks = sparse(file, "checks", Math.floor(row / of.imagesPerPrompt));
  return { seed, seconds, outOfRange, evidence: evidence ? evidence[1] : "", checks: checks ? checks[1] : "" };
}

// The rows of the same prompt.
function siblingRows(row) {
  const first = row - (row % index.imagesPerPrompt);
  const start = Math.max(first, Math.min(row - SIBLINGS / 2, first + index.imagesPerPrompt - SIBLINGS));
  return Array.from({ length: Math.min(SIBLINGS, index.imagesPerPrompt) }, (_, number) => start + number);
}

function decode(text, kind) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return kind === Uint8Array ? bytes : new kind(bytes.buffer);
}

// What `add_index` wrote of a run; a page of several has each run's files under a prefix of its own.
function readIndex(prefix = "") {
  const [, stored] = entries(`${prefix}index`, "index")[0];
  const pictures = new Map();
  for (const [row, src, full, width, height, problem] of stored.pictures) {
    pictures.set(row, { src, full: full || src, size: src ? [width, height] : null, problem });
  }
  const prompts = stored.rows / stored.imagesPerPrompt;
  return {
    ...stored,
    prefix,
    pictures,
    states: decode(stored.states, Uint8Array),
    tasks: stored.tasks ? decode(stored.tasks, Uint16Array) : new Uint16Array(prompts),
    splits: stored.splits ? decode(stored.splits, Uint16Array) : new Uint16Array(prompts),
    scores: stored.scores ? decode(stored.scores, Float32Array) : null,
    scorers: stored.scorers,
  };
}

// The search: which prompts contain a text, or null without one. In a large run it reads every file once.
let search = { query: "", hits: null };
const texts = new Map(); // lower-case prompts by file number, once read

function promptTexts(number) {
  if (!texts.has(number)) {
    const name = fileName("rows", number * index.rowsPerFile);
    const [first, prompts] = entries(name, "prompts")[0];
    texts.set(number, [first, prompts.map(([, text]) => text.toLowerCase())]);
  }
  return texts.get(number);
}

function markHits(number, query, hits) {
  const [first, prompts] = promptTexts(number);
  prompts.forEach((text, i) => { if (text.includes(query)) hits[first + i] = 1; });
}

// Calls `action` with the hits: at once if all texts are here, else when all are, with progress meanwhile.
async function searchFiles(query, hits, isCurrent, progress) {
  let next = 0;
  const worker = async () => {
    while (next <= lastFile() && isCurrent()) {
      const number = next++;
      const name = fileName("rows", number * index.rowsPerFile);
      if (!texts.has(number)) await loadFile(name);
      markHits(number, query, hits);
      dropOldFiles("rows");
      if (number % 50 === 0) progress(number / (lastFile() + 1));
    }
  };
  await Promise.all(Array.from({ length: LOADS_AT_ONCE }, worker));
}

function withSearch(query, action) {
  if (query === search.query) return action();
  const wanted = { query, hits: query ? new Uint8Array(index.rows / index.imagesPerPrompt) : null };
  search = wanted;
  const isCurrent = () => search === wanted;
  const progress = (share) => isCurrent() && ($("status").textContent = `Searching, ${Math.round(100 * share)}%`);
  if (query && source.folder) {
    wanted.pending = true;
    progress(0);
    searchFiles(query, wanted.hits, isCurrent, progress).then(() => {
      wanted.pending = false;
      if (isCurrent()) action();
    }, showLoadError);
    return undefined;
  }
  for (let number = 0; query && number <= lastFile(); number++) markHits(number, query, wanted.hits);
  return action();
}

// The row of a key: found in the files of a large run, one after the other.
async function findKey(key) {
  const [id, position] = [key.slice(0, key.lastIndexOf("/")), Number(key.slice(key.lastIndexOf("/") + 1))];
  for (let number = 0; number <= lastFile(); number++) {
    const name = fileName("rows", number * index.rowsPerFile);
    if (!files.has(name)) await loadFile(name);
    const [first, prompts] = entries(name, "prompts")[0];
    const at = prompts.findIndex(([other]) => other === id);
    const row = (first + at) * index.imagesPerPrompt + position;
    if (at >= 0 && position >= 0 && position < index.imagesPerPrompt) return row;
    if (source.folder) dropOldFiles("rows");
  }
  return -1;
}

// Calls `action` when these files are here; those inside the page are.
function startFiles(names, action) {
  for (const call of source.calls) window.reportData(...call);
  source.calls = [];
  if (names.every((name) => files.has(name))) action();
  else Promise.all(names.map(loadFile)).then(action, showLoadError);
}

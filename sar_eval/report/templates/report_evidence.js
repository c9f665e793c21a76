// What a judge wrote of an image: boxes and answered questions if they have the expected form, and the rest
// as text. The stored JSON may be anything.

const MASK_PIXELS = 2 ** 26;
const MASK_RUNS = 100000;
const ENTRIES = 1000; // boxes that are drawn, and questions that are shown as a tree

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function numberOrNull(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// An uncompressed COCO mask; null for any other. Its size is checked before anything is made of that size.
function readMask(mask) {
  if (!isObject(mask) || !Array.isArray(mask.size) || !Array.isArray(mask.counts)) return null;
  const [height, width] = mask.size;
  const whole = [height, width, ...mask.counts.slice(0, MASK_RUNS)].every((n) => Number.isInteger(n) && n >= 0);
  if (!whole || mask.size.length !== 2 || mask.counts.length > MASK_RUNS) return null;
  if (height < 1 || width < 1 || height * width > MASK_PIXELS) return null;
  return mask.counts.reduce((sum, run) => sum + run, 0) === height * width ? { size: [height, width], counts: mask.counts } : null;
}

function maskNote(mask) {
  const size = isObject(mask) && Array.isArray(mask.size) ? mask.size.slice(0, 2).map(String).join(" × ") : "";
  return size ? `mask of ${size.slice(0, 60)} pixels not drawn` : "mask not drawn";
}

// The two most likely colours with their probabilities.
function bestColors(colors) {
  if (!isObject(colors)) return [];
  const finite = Object.entries(colors).filter(([, share]) => numberOrNull(share) !== null);
  return finite.sort((one, other) => other[1] - one[1]).slice(0, 2);
}

function readBox(entry) {
  if (!isObject(entry) || !("name" in entry) || !Array.isArray(entry.box) || entry.box.length !== 4) return null;
  if (!entry.box.every((edge) => numberOrNull(edge) !== null)) return null;
  const mask = readMask(entry.mask);
  return {
    name: String(entry.name),
    color: entry.color ? String(entry.color) : "",
    score: numberOrNull(entry.score),
    box: entry.box,
    mask,
    note: entry.mask && typeof entry.mask !== "string" && !mask ? maskNote(entry.mask) : "",
    colors: bestColors(entry.colors),
  };
}

// An answered question; `counted` is null if the image was not scored.
function readQuestion(row) {
  if (!isObject(row) || !["id", "question", "answer", "yes"].every((name) => name in row)) return null;
  const id = typeof row.id === "string" && /^\d+$/.test(row.id) ? Number(row.id) : row.id;
  const zeroedBy = "zeroed_by" in row ? row.zeroed_by : [];
  if (!Number.isInteger(id) || !Array.isArray(zeroedBy) || !zeroedBy.every(Number.isInteger)) return null;
  return {
    id,
    text: String(row.question),
    answer: String(row.answer),
    yes: row.yes === true,
    soft: numberOrNull(row.soft),
    truncated: row.truncated === true,
    zeroed_by: zeroedBy,
    counted: "counted" in row ? Boolean(row.counted) : null,
    problem: row.error ? String(row.error) : "",
  };
}

function readQuestions(rows) {
  const questions = Array.isArray(rows) && rows.length <= ENTRIES ? rows.map(readQuestion) : [];
  return questions.every(Boolean) ? questions : [];
}

function indented(value, text) {
  // A number of so many digits would be rounded here.
  if (/(^|[^\d.])\d{16,}(?![\d.eE])/.test(text)) return text;
  try {
    return JSON.stringify(value, null, 2);
  } catch {
    return text; // nested too deep
  }
}

function readEvidence(text) {
  if (!text) return { boxes: [], questions: [], rest: "" };
  const value = parseJson(text);
  if (value === undefined) return { boxes: [], questions: [], rest: text };
  if (!isObject(value)) return { boxes: [], questions: [], rest: value === null ? "" : indented({ evidence: value }, text) };
  const boxes = (Array.isArray(value.boxes) ? value.boxes : []).slice(0, ENTRIES).map(readBox).filter(Boolean);
  const questions = readQuestions(value.questions);
  const shown = questions.length ? ["boxes", "questions"] : ["boxes"];
  const rest = Object.entries(value).filter(([name, content]) => !shown.includes(name) && content !== null);
  // Object.fromEntries makes a key `__proto__` like any other.
  return { boxes, questions, rest: rest.length ? indented(Object.fromEntries(rest), text) : "" };
}

// Parents of each question by id; empty if the checks have no questions.
function readParents(text) {
  const checks = parseJson(text);
  const parents = new Map();
  for (const question of (isObject(checks) && Array.isArray(checks.questions) && checks.questions) || []) {
    if (!isObject(question) || !Number.isInteger(question.id)) return new Map();
    const of = question.parents === undefined ? [] : question.parents;
    if (!Array.isArray(of) || !of.every(Number.isInteger)) return new Map();
    parents.set(question.id, of);
  }
  return parents;
}

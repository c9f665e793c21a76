// The gallery: filters, cards, progressive rendering. Prompts, reasons and names are untrusted text:
// they are inserted through textContent and attributes only, never as markup.

const PAGE_SIZE = 60; // cards rendered at once; more follow as the reader scrolls
const SHEET = 600; // cards of a large run after which a button leads on
const MIN_SMOOTH = 128; // pixels; smaller images are enlarged without smoothing
const STATES = { pass: "Pass", fail: "Fail", scored: "Scored", none: "No verdict" };

const filters = { verdict: "", task: "", split: "", query: "", picture: "" };
let shown = new Uint32Array(0); // rows that match the filters, ascending
let sheet = 0; // the first position of `shown` that has a card
let rendered = 0; // the position after the last that has one
let filtering = 0; // counts the filters applied: rows that arrive for earlier ones are dropped

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  return node;
}

function formatCount(number) {
  return number.toLocaleString("en");
}

function formatScore(value) {
  return value === null || value === undefined ? "–" : value.toFixed(value > 1 ? 2 : 3);
}

function badge(image) {
  const label = image.state === "scored" ? formatScore(image.score) : STATES[image.state];
  return element("span", `badge ${image.state}`, label);
}

function readableName(name) {
  return name.replaceAll("_", " ");
}

function cardReason(image) {
  return image.reason || (image.state === "none" ? image.problem || "" : "");
}

// One pass over all rows: those that match, and beside each filter's choices how many each would show,
// for which that filter itself is left out.
function matchRows(hits) {
  const code = (names, name) => (name ? names.indexOf(name) + 1 || -1 : 0);
  const [state, task, split] = [
    STATE_NAMES.indexOf(filters.verdict),
    code(index.taskNames, filters.task),
    code(index.splitNames, filters.split),
  ];
  const counts = {
    verdict: new Uint32Array(STATE_NAMES.length),
    task: new Uint32Array(index.taskNames.length + 1),
    split: new Uint32Array(index.splitNames.length + 1),
  };
  const matching = new Uint32Array(index.rows);
  let number = 0;
  for (let row = 0, prompt = 0, left = index.imagesPerPrompt; row < index.rows; row++, left--) {
    if (left === 0) [prompt, left] = [prompt + 1, index.imagesPerPrompt];
    if ((hits && !hits[prompt]) || (filters.picture && !index.pictures.has(row))) continue;
    const own = index.states[row] & 3;
    const ofState = state < 0 || own === state;
    const ofTask = task === 0 || index.tasks[prompt] === task;
    const ofSplit = split === 0 || index.splits[prompt] === split;
    if (ofTask && ofSplit) counts.verdict[own]++;
    if (ofState && ofSplit) counts.task[index.tasks[prompt]]++;
    if (ofState && ofTask) counts.split[index.splits[prompt]]++;
    if (ofState && ofTask && ofSplit) matching[number++] = row;
  }
  return { matching: matching.slice(0, number), counts };
}

function positionOf(row) {
  const position = firstAtLeast(row);
  return shown[position] === row ? position : -1;
}

// The position of the first shown row that is not before `row`.
function firstAtLeast(row) {
  let [low, high] = [0, shown.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (shown[middle] < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

function imageFrame(image, size) {
  const frame = element("span", "image-frame");
  if (!image.src) {
    frame.classList.add("absent");
    frame.append(element("span", "", image.leftOut ? "Not copied here" : "No image"));
    return frame;
  }
  const img = element("img", Math.max(...image.size) < MIN_SMOOTH ? "pixelated" : "");
  img.loading = "lazy";
  img.decoding = "async";
  img.alt = "";
  [img.width, img.height] = image.size;
  img.src = size === "full" ? image.full : image.src;
  frame.append(img);
  return frame;
}

function card(image) {
  const item = element("li");
  const button = element("button", `card ${image.state}`);
  button.type = "button";
  button.dataset.key = image.key;
  button.dataset.number = image.number;
  button.title = image.key;
  const line = element("span", "line");
  line.append(badge(image), element("span", "muted", `#${image.index}`));
  const prompt = element("span", "prompt", image.prompt.text);
  prompt.dir = "auto";
  button.append(imageFrame(image), line, prompt);
  if (cardReason(image)) button.append(element("span", "reason", cardReason(image)));
  item.append(button);
  return item;
}

function sheetEnd() {
  return source.folder ? Math.min(sheet + SHEET, shown.length) : shown.length;
}

// Adds the cards of the next positions, at once if their rows are here; calls `action` after that.
function addCards(until, action = () => {}) {
  const [from, asked] = [rendered, filtering];
  const end = Math.min(until, sheetEnd());
  withRows("rows", Array.from(shown.subarray(from, end)), () => {
    if (asked !== filtering || rendered !== from) return;
    const cards = document.createDocumentFragment();
    for (const row of shown.subarray(from, end)) cards.append(card(readRow(row)));
    $("cards").append(cards);
    rendered = end;
    action();
  });
}

function showSheet(start) {
  filtering += 1;
  [sheet, rendered] = [start, start];
  $("cards").replaceChildren();
  $("sheets").hidden = shown.length <= sheetEnd() - sheet;
  $("sheet-position").textContent = `${formatCount(sheet + 1)} to ${formatCount(sheetEnd())} of ${formatCount(shown.length)}`;
  for (const id of ["sheet-first", "sheet-previous"]) $(id).disabled = sheet === 0;
  for (const id of ["sheet-next", "sheet-last"]) $(id).disabled = sheetEnd() >= shown.length;
  addCards(start + PAGE_SIZE, observeEnd);
}

function turnTo(start) {
  showSheet(start);
  $("images").scrollIntoView();
}

function showChoices(field, counts) {
  if (!$(field)) return;
  const names = index[`${field}Names`];
  for (const option of $(field).options) {
    const number = counts[names.indexOf(option.value) + 1];
    option.textContent = option.value ? `${readableName(option.value)} (${formatCount(number)})` : `All ${field}s`;
  }
}

function showCounts(counts) {
  const all = counts.verdict.reduce((sum, number) => sum + number, 0);
  for (const label of $("verdicts").querySelectorAll("label")) {
    const state = STATE_NAMES.indexOf(label.dataset.value);
    label.querySelector(".count").textContent = formatCount(state < 0 ? all : counts.verdict[state]);
  }
  showChoices("task", counts.task);
  showChoices("split", counts.split);
  const filtered = Object.values(filters).some(Boolean);
  const total = formatCount(index.rows);
  $("status").textContent = filtered ? `${formatCount(shown.length)} of ${total}` : `${total} images`;
  $("reset").hidden = !filtered;
  $("no-matches").hidden = shown.length > 0;
}

function applyFilters(action = () => {}) {
  withSearch(filters.query.toLowerCase(), () => {
    const { matching, counts } = matchRows(search.hits);
    shown = matching;
    showCounts(counts);
    showSheet(0);
    // Otherwise the window could be left below the end of a gallery that got shorter.
    if ($("filters").getBoundingClientRect().top <= 0) $("images").scrollIntoView();
    action();
  });
}

const observer = new IntersectionObserver(
  (entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || rendered >= sheetEnd()) return;
    addCards(rendered + PAGE_SIZE, observeEnd);
  },
  { rootMargin: "1200px" },
);

// Observing again calls back at once, so pages are added until the end is well below the window.
function observeEnd() {
  observer.unobserve($("end-of-cards"));
  observer.observe($("end-of-cards"));
}

function segment(value, name) {
  const label = element("label", `segment ${value}`);
  label.dataset.value = value;
  const input = element("input");
  Object.assign(input, { type: "radio", name: "verdict", value, defaultChecked: value === "" });
  label.append(input, element("span", "name", name), element("span", "count"));
  return label;
}

function buildVerdicts() {
  const present = new Set();
  for (const bits of index.states) present.add(STATE_NAMES[bits & 3]);
  const offered = present.has("scored") ? ["scored", "none"] : ["pass", "fail", "none"];
  const states = Object.keys(STATES).filter((state) => offered.includes(state) || present.has(state));
  $("verdicts").append(segment("", "All"), ...states.map((state) => segment(state, STATES[state])));
}

// The URL's fragment has the filters and the open image, so that a link shows the same view. With a large
// run it has the row too, which is found faster than a key.
function writeAddress(image) {
  const parameters = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  if (image) parameters.set("image", image.key);
  if (image && source.folder) parameters.set("row", image.number);
  history.replaceState(null, "", `#${parameters.toString() || "images"}`);
}

function readAddress() {
  if (!location.hash.includes("=")) return new URLSearchParams();
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(filters)) filters[name] = parameters.get(name) || "";
  for (const name of ["task", "split", "query"]) if ($(name)) $(name).value = filters[name];
  if ($("picture")) $("picture").checked = Boolean(filters.picture);
  for (const input of $("verdicts").querySelectorAll("input")) input.checked = input.value === filters.verdict;
  return parameters;
}

function readControls() {
  filters.verdict = $("verdicts").querySelector("input:checked").value;
  filters.query = $("query").value.trim();
  filters.picture = $("picture") && $("picture").checked ? "yes" : "";
  for (const field of ["task", "split"]) filters[field] = $(field) ? $(field).value : "";
  applyFilters();
  writeAddress();
}

// A search in a large run reads all its files, so it waits until no key was pressed for a moment.
let typing = 0;
function onInput(event) {
  clearTimeout(typing);
  if (event.target.id === "query" && source.folder) typing = setTimeout(readControls, 400);
  else readControls();
}

function startGallery() {
  buildVerdicts();
  $("filters").addEventListener("input", onInput);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(readControls)); // after the browser's own reset
  $("sheet-first").addEventListener("click", () => turnTo(0));
  $("sheet-previous").addEventListener("click", () => turnTo(sheet - SHEET));
  $("sheet-next").addEventListener("click", () => turnTo(sheet + SHEET));
  $("sheet-last").addEventListener("click", () => turnTo(SHEET * Math.floor((shown.length - 1) / SHEET)));
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    readAddress();
    applyFilters();
    $("images").scrollIntoView();
  });
}

// The report's gallery: its filters, and a card for each image.

const filters = { verdict: "", task: "", split: "", query: "", picture: "", scorer: "", min: "", max: "", sort: "", unscored: "" };

const hasPicture = (row) => index.pictures.has(row);

function findRows(hits) {
  const isChosen = STATE_NAMES.map((name) => !filters.verdict || name === filters.verdict);
  const { matching, counts } = matchRows(hits, index.states, 3, isChosen, outsideRange());
  return { matching: inOrder(matching), counts };
}

function positionOf(row) {
  if (!inSuiteOrder()) return shown.indexOf(row);
  const position = firstAtLeast(row);
  return shown[position] === row ? position : -1;
}

// The position of the first shown row that is not before `row`, in suite order.
function firstAtLeast(row) {
  let [low, high] = [0, shown.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (shown[middle] < row) low = middle + 1;
    else high = middle;
  }
  return low;
}

const withCards = (rows, action) => withRows("rows", rows, action);

function makeCard(row) {
  const image = readRow(row);
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
  button.append(...scoreLines(row));
  item.append(button);
  return item;
}

function showCounts(counts) {
  const all = counts.kind.reduce((sum, number) => sum + number, 0);
  for (const label of $("verdicts").querySelectorAll("label")) {
    const state = STATE_NAMES.indexOf(label.dataset.value);
    label.querySelector(".count").textContent = formatCount(state < 0 ? all : counts.kind[state]);
  }
  showChoices("task", counts.task);
  showChoices("split", counts.split);
  const filtered = Object.entries(filters).some(([name, value]) => value && name !== "sort" && name !== "scorer");
  const total = formatCount(index.rows);
  $("status").textContent = filtered ? `${formatCount(shown.length)} of ${total}` : `${total} images`;
  $("reset").hidden = !filtered && !filters.scorer;
  $("no-matches").hidden = shown.length > 0;
}

function buildVerdicts() {
  const present = new Set();
  for (const bits of index.states) present.add(STATE_NAMES[bits & 3]);
  const offered = present.has("scored") ? ["scored", "none"] : ["pass", "fail", "none"];
  const states = Object.keys(STATES).filter((state) => offered.includes(state) || present.has(state));
  $("verdicts").append(segment("", "All", "verdict"), ...states.map((state) => segment(state, STATES[state], "verdict")));
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
  showRange();
  for (const input of $("verdicts").querySelectorAll("input")) input.checked = input.value === filters.verdict;
  return parameters;
}

function readControls(event) {
  filters.verdict = $("verdicts").querySelector("input:checked").value;
  filters.query = $("query").value.trim();
  filters.picture = $("picture") && $("picture").checked ? "yes" : "";
  for (const field of ["task", "split"]) filters[field] = $(field) ? $(field).value : "";
  readRange(event);
  applyFilters();
  writeAddress();
}

function startGallery() {
  buildVerdicts();
  startFilters(readControls);
  startSheets();
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    readAddress();
    applyFilters();
    $("images").scrollIntoView();
  });
}

// The cards of a gallery: rendered some at a time as the reader scrolls, and in sheets where the rows are in files.
// A page of its own says what the filters are (`filters`, findRows, hasPicture, showCounts) and what a card is:
// withCards(rows, action) calls `action` when the rows are here, makeCard(row) makes one.

const PAGE_SIZE = 60; // cards rendered at once; more follow as the reader scrolls
const SHEET = 600; // cards of a large run after which a button leads on

let shown = new Uint32Array(0); // rows that match the filters, in the order of their cards
let sheet = 0; // the first position of `shown` that has a card
let rendered = 0; // the position after the last that has one
let filtering = 0; // counts the filters applied: rows that arrive for earlier ones are dropped

function sheetEnd() {
  return source.folder ? Math.min(sheet + SHEET, shown.length) : shown.length;
}

// Adds the cards of the next positions, at once if their rows are here; calls `action` after that.
function addCards(until, action = () => {}) {
  const [from, asked] = [rendered, filtering];
  const end = Math.min(until, sheetEnd());
  withCards(Array.from(shown.subarray(from, end)), () => {
    if (asked !== filtering || rendered !== from) return;
    const cards = document.createDocumentFragment();
    for (const row of shown.subarray(from, end)) cards.append(makeCard(row));
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

// One pass over all rows: those that match the filters, and beside each filter's choices how many each would show,
// for which that filter itself is left out. `kinds` has each row's kind in its lowest two bits, or three; `isChosen`
// says by kind which are asked for, `isOutside` of a row whether another filter leaves it out.
function matchRows(hits, kinds, mask, isChosen, isOutside = null) {
  const code = (names, name) => (name ? names.indexOf(name) + 1 || -1 : 0);
  const [task, split] = [code(index.taskNames, filters.task), code(index.splitNames, filters.split)];
  const counts = {
    kind: new Uint32Array(isChosen.length),
    task: new Uint32Array(index.taskNames.length + 1),
    split: new Uint32Array(index.splitNames.length + 1),
  };
  const matching = new Uint32Array(index.rows);
  let number = 0;
  for (let row = 0, prompt = 0, left = index.imagesPerPrompt; row < index.rows; row++, left--) {
    if (left === 0) [prompt, left] = [prompt + 1, index.imagesPerPrompt];
    if ((hits && !hits[prompt]) || (filters.picture && !hasPicture(row)) || (isOutside && isOutside(row))) continue;
    const kind = kinds[row] & mask;
    const ofKind = isChosen[kind];
    const ofTask = task === 0 || index.tasks[prompt] === task;
    const ofSplit = split === 0 || index.splits[prompt] === split;
    if (ofTask && ofSplit) counts.kind[kind]++;
    if (ofKind && ofSplit) counts.task[index.tasks[prompt]]++;
    if (ofKind && ofTask) counts.split[index.splits[prompt]]++;
    if (ofKind && ofTask && ofSplit) matching[number++] = row;
  }
  return { matching: matching.slice(0, number), counts };
}

function showChoices(field, counts) {
  if (!$(field)) return;
  const names = index[`${field}Names`];
  for (const option of $(field).options) {
    const number = counts[names.indexOf(option.value) + 1];
    option.textContent = option.value ? `${readableName(option.value)} (${formatCount(number)})` : `All ${field}s`;
  }
}

function applyFilters(action = () => {}) {
  withSearch(filters.query.toLowerCase(), () => {
    const { matching, counts } = findRows(search.hits);
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

// Puts the focus on the card of a position, on whichever sheet it is.
function focusCard(position, row) {
  const focus = () => {
    const card = $("cards").querySelector(`.card[data-number="${row}"]`);
    if (card) card.focus();
  };
  if (position >= 0 && (position < sheet || position >= sheetEnd())) turnTo(SHEET * Math.floor(position / SHEET));
  if (position >= rendered) addCards(position + 1, () => (focus(), observeEnd()));
  else focus();
}

function segment(value, name, group) {
  const label = element("label", `segment ${value}`);
  label.dataset.value = value;
  const input = element("input");
  Object.assign(input, { type: "radio", name: group, value, defaultChecked: value === "" });
  label.append(input, element("span", "name", name), element("span", "count"));
  return label;
}

// Calls `read` for every change of the filters. A search in a large run reads all its files, so it waits until no
// key was pressed for a moment.
let typing = 0;
function startFilters(read) {
  $("filters").addEventListener("input", (event) => {
    clearTimeout(typing);
    if (event.target.id === "query" && source.folder) typing = setTimeout(read, 400, event);
    else if (event.target.type === "range") typing = setTimeout(read, 60, event); // while it is dragged
    else read(event);
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(read)); // after the browser's own reset
}

function startSheets() {
  $("sheet-first").addEventListener("click", () => turnTo(0));
  $("sheet-previous").addEventListener("click", () => turnTo(sheet - SHEET));
  $("sheet-next").addEventListener("click", () => turnTo(sheet + SHEET));
  $("sheet-last").addEventListener("click", () => turnTo(SHEET * Math.floor((shown.length - 1) / SHEET)));
}

// The page's own `openView`, `step`, `onClose`, `onKey` and `toggleLayers` do the rest.
function listenToView() {
  $("cards").addEventListener("click", (event) => {
    const clicked = event.target.closest(".card");
    if (clicked) openView(Number(clicked.dataset.number));
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("view").close());
  $("view").addEventListener("close", onClose);
  $("view").addEventListener("click", (event) => event.target === $("view") && $("view").close());
  document.addEventListener("keydown", onKey);
  for (const id of ["show-boxes", "show-masks"]) $(id).addEventListener("change", toggleLayers);
  toggleLayers();
}

// `withLoaded` loads rows before it goes on, `read` gives a loaded one.
async function openLinked(parameters, withLoaded, read) {
  const key = parameters.get("image");
  if (!key) return;
  const row = Number(parameters.get("row") || -1);
  const isRow = source.folder && Number.isInteger(row) && row >= 0 && row < index.rows;
  if (isRow) withLoaded("rows", [row], () => read(row).key === key && openView(row));
  else {
    const found = await findKey(key).catch((error) => (showLoadError(error), -1));
    if (found >= 0) openView(found);
  }
}

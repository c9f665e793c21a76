// The comparison's page: which pair of runs is shown, and the gallery of its images.

const filters = { change: "", task: "", split: "", query: "", picture: "", order: "" };

function changeName(kind) {
  const names = { right: "Both pass", wrong: "Both fail", same: "Same", none: "Not both scored" };
  return names[kind] || `${pair.second} ${kind}`;
}

// The kinds that a choice shows; a page begins with those that changed.
function isChosen(kind) {
  if (filters.change === "all") return true;
  return filters.change ? CHANGES[kind] === filters.change : kind < 2;
}

function findRows(hits) {
  const { matching, counts } = matchRows(hits, pair.kinds, 7, CHANGES.map((_, kind) => isChosen(kind)));
  return { matching: inOrder(matching), counts };
}

function inOrder(rows) {
  if (!pair.isScored || filters.order) return rows;
  const size = (row) => (Number.isNaN(pair.gains[row]) ? -1 : Math.abs(pair.gains[row]));
  return rows.sort((one, other) => size(other) - size(one) || one - other);
}

const withCards = (rows, action) => withPairs("rows", rows, action);

function sideFrame(letter, image, place) {
  const frame = imageFrame(image);
  frame.append(element("b", `letter letter-${place}`, letter));
  return frame;
}

function gainText(row) {
  const gain = pair.gains[row];
  return Number.isNaN(gain) ? "" : `${gain < 0 ? "-" : "+"}${formatScore(Math.abs(gain))}`;
}

function badges(first, second, row) {
  const line = element("span", "line");
  const change = element("span", "change");
  change.append(badge(first), element("span", "arrow", "→"), badge(second));
  line.append(change, element("span", "muted", pair.isScored ? gainText(row) : `#${row % index.imagesPerPrompt}`));
  return line;
}

function makeCard(row) {
  const [own, first, second] = [readOwn(row), readSide(pair.first, row), readSide(pair.second, row)];
  const item = element("li");
  const button = element("button", `card pair-card ${CHANGES[pair.kinds[row]]}`);
  button.type = "button";
  button.dataset.number = row;
  button.dataset.key = own.key;
  button.title = own.key;
  const frames = element("span", "duo");
  frames.append(sideFrame(pair.first, first, "first"), sideFrame(pair.second, second, "second"));
  const prompt = element("span", "prompt", own.prompt.text);
  prompt.dir = "auto";
  button.append(frames, badges(first, second, row), prompt);
  const reason = cardReason(first) || cardReason(second);
  if (reason) button.append(element("span", "reason", `${cardReason(first) ? pair.first : pair.second}: ${reason}`));
  item.append(button);
  return item;
}

function showCounts(counts) {
  const sum = (kinds) => kinds.reduce((total, number) => total + number, 0);
  for (const label of $("changes").querySelectorAll("label")) {
    const { value } = label.dataset;
    const number = value === "all" ? sum(counts.kind) : value ? counts.kind[CHANGES.indexOf(value)] : sum(counts.kind.slice(0, 2));
    label.querySelector(".count").textContent = formatCount(number);
  }
  showChoices("task", counts.task);
  showChoices("split", counts.split);
  $("status").textContent = `${formatCount(shown.length)} of ${formatCount(index.rows)} pairs of images`;
  $("reset").hidden = !Object.values(filters).some(Boolean);
  $("no-matches").hidden = shown.length > 0;
  const isNarrowed = filters.change || filters.task || filters.split || filters.query || filters.picture;
  $("no-matches").textContent = isNarrowed ? "No pair matches these filters." : `Nothing changed: every image scores the same in ${pair.first} and ${pair.second}.`;
}

// The choices of this pair: those of pass and fail, or of scores.
function buildChanges() {
  const ties = pair.isScored ? ["same"] : ["right", "wrong"];
  const kinds = ["won", "lost", ...ties, "none"].filter((kind) => kind !== "none" || pair.kinds.includes(5));
  const own = [segment("", "Changed", "change"), ...kinds.map((kind) => segment(kind, changeName(kind), "change"))];
  $("changes").replaceChildren($("changes").firstElementChild, ...own, segment("all", "All", "change"));
  $("order-label").hidden = !pair.isScored;
}

function showPair(name) {
  const known = comparison.pairs.find(([one, other]) => `${one}-${other}` === name);
  const [first, second, sharesSeeds] = known || comparison.pairs[0];
  for (const article of document.querySelectorAll(".pair")) article.hidden = article.dataset.pair !== `${first}-${second}`;
  if ($("pair")) $("pair").value = `${first}-${second}`;
  if (!$("gallery")) return;
  const hasBoth = runs.has(first) && runs.has(second);
  $("gallery").hidden = !hasBoth;
  $("no-pictures").hidden = hasBoth;
  $("pairing").hidden = !hasBoth || sharesSeeds;
  if (hasBoth && pair && pair.first === first && pair.second === second) return;
  pair = hasBoth ? makePair(first, second) : null;
  if (pair) buildChanges();
  if (!pair) $("status").textContent = "";
}

// The URL's fragment has the pair, the filters and the open image, so that a link shows the same view.
function writeAddress(row) {
  const parameters = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  if ($("pair")) parameters.set("pair", $("pair").value);
  if (row !== undefined) parameters.set("image", readOwn(row).key);
  if (row !== undefined && source.folder) parameters.set("row", row);
  history.replaceState(null, "", `#${parameters.toString() || "images"}`);
}

function readAddress() {
  const parameters = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  for (const name of Object.keys(filters)) filters[name] = parameters.get(name) || "";
  showPair(parameters.get("pair") || "");
  for (const name of ["task", "split", "query", "order"]) if ($(name)) $(name).value = filters[name];
  if ($("picture")) $("picture").checked = Boolean(filters.picture);
  if ($("changes")) for (const input of $("changes").querySelectorAll("input")) input.checked = input.value === filters.change;
  return parameters;
}

function readControls() {
  filters.change = $("changes").querySelector("input:checked").value;
  filters.query = $("query").value.trim();
  filters.picture = $("picture") && $("picture").checked ? "yes" : "";
  for (const field of ["task", "split", "order"]) filters[field] = $(field) ? $(field).value : "";
  applyFilters();
  writeAddress();
}

function onPairChosen() {
  filters.change = "";
  showPair($("pair").value);
  if (pair) applyFilters();
  writeAddress();
}

function onLink() {
  if (!location.hash.includes("=")) return;
  const parameters = readAddress();
  if (pair) applyFilters(() => openLinked(parameters, withPairs, readOwn));
  $(["task", "split", "image"].some((name) => parameters.has(name)) ? "images" : "differences").scrollIntoView();
}

function startPairs() {
  if ($("pair")) $("pair").addEventListener("change", onPairChosen);
  window.addEventListener("hashchange", onLink);
}

function startGallery() {
  startFilters(readControls);
  startSheets();
}

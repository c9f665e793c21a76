// The large view: both images of a pair with their verdicts and evidence, zoomed and moved together.

const MOST_ZOOM = 32;
const ZOOM_STEP = 1.5;
let current = -1; // row
let opening = -1; // the row asked for: a slower one that arrives later is not shown
const zoom = { scale: 1, x: 0.5, y: 0.5 }; // what is in the middle of both frames, as shares of the picture

const part = (place, selector) => $(place).querySelector(selector);

function missingText(image, letter) {
  if (!image.leftOut) return [image.problem || "No image"];
  const where = `This picture is in the run folder of ${letter}, not beside this page. To have more of them here:`;
  return [where, element("br"), element("code", "", "sar-eval compare ... --images N")];
}

function showImage(place, letter, image) {
  const [frame, img, missing] = [part(place, ".frame"), part(place, "img"), part(place, ".missing")];
  frame.hidden = !image.src;
  missing.hidden = Boolean(image.src);
  missing.replaceChildren(...missingText(image, letter));
  img.removeAttribute("src"); // or the last image stays while a large one loads
  if (!image.src) return;
  const [width, height] = image.size;
  frame.style.setProperty("--ratio", width / height);
  img.className = Math.max(width, height) < MIN_SMOOTH ? "pixelated" : "";
  img.alt = `Image of ${letter} for: ${image.prompt.text}`;
  img.src = image.full;
}

function showSideQuestions(place, questions, parents) {
  part(place, ".side-questions").hidden = questions.length === 0;
  part(place, ".counted").textContent = countedText(questions);
  part(place, ".questions").replaceChildren(...questionTree(questions, parents));
}

function showSideDetails(place, image, details) {
  const lines = {
    key: image.key || "",
    seed: details ? details.seed : "",
    score: image.score === null ? "" : formatScore(image.score),
    size: image.size ? `${image.size[0]} × ${image.size[1]}` : "",
    seconds: details && details.seconds ? details.seconds.toPrecision(3) : "",
    "tokens out of range": (details && details.outOfRange) || "",
  };
  part(place, ".details").replaceChildren(...detailLines(lines));
}

function showSide(place, letter, image, details, evidence) {
  part(place, ".letter").textContent = letter;
  part(place, ".side-text").dataset.run = `${letter}  ${labelOf(letter)}`; // its heading in a narrow window
  part(place, ".side-label").textContent = labelOf(letter);
  part(place, ".side-badge").replaceChildren(badge(image));
  part(place, ".side-text .reasons").replaceChildren(...reasons(image));
  showImage(place, letter, image);
  const layers = { boxes: part(place, ".boxes-layer"), masks: part(place, ".masks"), rows: part(place, ".boxes tbody") };
  part(place, "table.boxes").hidden = drawBoxes(image, evidence.boxes, layers, `hole-${place}`).boxes === 0;
  showSideQuestions(place, evidence.questions, readParents(details ? details.checks : ""));
  showSideDetails(place, image, details);
  part(place, ".evidence").hidden = !evidence.rest;
  part(place, ".evidence pre").textContent = evidence.rest;
}

// Marks the questions that one image's answers decide otherwise than the other's.
function markDiffering(questions, others) {
  const known = new Map(others.map((question) => [question.id, question]));
  for (const question of questions) {
    const other = known.get(question.id);
    question.differs = Boolean(other) && (other.yes !== question.yes || other.counted !== question.counted);
  }
}

function showChange(row) {
  const kind = CHANGES[pair.kinds[row]];
  const words = { won: `${pair.second} is better`, lost: `${pair.first} is better` };
  const text = [words[kind] || changeName(kind), pair.isScored ? gainText(row) : ""].filter(Boolean).join(", ");
  const { task, split } = readOwn(row).prompt;
  const where = [task, split].filter(Boolean).map(readableName).join(", ");
  $("view-change").replaceChildren(element("span", `change-word ${kind}`, text), element("span", "muted", where));
}

function sibling(row) {
  const [first, second] = [readSide(pair.first, row), readSide(pair.second, row)];
  const item = element("li");
  const button = element("button", "sibling");
  const name = `Image ${row % index.imagesPerPrompt}: ${STATES[first.state]} and ${STATES[second.state]}`;
  button.type = "button";
  button.title = name;
  button.setAttribute("aria-label", name);
  if (row === current) button.setAttribute("aria-current", "true");
  const frames = element("span", "duo");
  frames.append(imageFrame(first), imageFrame(second));
  button.append(frames, badges(first, second, row));
  button.addEventListener("click", () => openView(row));
  item.append(button);
  return item;
}

function showPosition() {
  const position = shown.indexOf(current);
  const total = formatCount(shown.length);
  $("view-position").textContent = position < 0 ? "outside the filter" : `${formatCount(position + 1)} of ${total}`;
  $("previous").disabled = position <= 0;
  $("next").disabled = position + 1 >= shown.length;
}

function openView(row) {
  opening = row;
  const siblings = siblingRows(row);
  withPairs("rows", siblings, () =>
    withPairs("details", [row], () => {
      // A slow file: the rows' files may be gone again.
      if (opening === row) withPairs("rows", siblings, () => showView(row, siblings));
    }),
  );
}

function showView(row, siblings) {
  current = row;
  const prompt = readOwn(row).prompt.text;
  const letters = [pair.first, pair.second];
  const details = letters.map((letter) => readSideDetails(letter, row));
  const evidence = details.map((found) => readEvidence(found ? found.evidence : ""));
  markDiffering(evidence[0].questions, evidence[1].questions);
  markDiffering(evidence[1].questions, evidence[0].questions);
  $("view-prompt").textContent = prompt;
  $("view-prompt").classList.toggle("long", prompt.length > 120);
  showChange(row);
  ["first", "second"].forEach((place, i) => showSide(place, letters[i], readSide(letters[i], row), details[i], evidence[i]));
  $("view-siblings").hidden = siblings.length < 2;
  $("siblings").replaceChildren(...siblings.map(sibling));
  showPosition();
  zoomTo(1, 0.5, 0.5);
  if (!$("view").open) {
    $("view").showModal();
    $("view").focus(); // not the first button: arrow keys would put a ring around it
  }
  writeAddress(row);
}

function step(direction) {
  const next = shown.indexOf(current) + direction;
  if (next >= 0 && next < shown.length) openView(shown[next]);
}

function onClose() {
  opening = -1;
  writeAddress();
  focusCard(shown.indexOf(current), current);
}

function zoomTo(scale, x, y) {
  const margin = 0.5 / scale;
  const within = (share) => Math.min(1 - margin, Math.max(margin, share));
  Object.assign(zoom, { scale, x: within(x), y: within(y) });
  const place = { width: scale, height: scale, left: 0.5 - zoom.x * scale, top: 0.5 - zoom.y * scale };
  for (const layers of $("sides").querySelectorAll(".layers")) {
    for (const [edge, share] of Object.entries(place)) layers.style[edge] = `${100 * share}%`;
  }
  $("sides").classList.toggle("zoomed", scale > 1);
  $("zoom-reset").textContent = `${Math.round(100 * scale)}%`;
}

// Zooms so that what is under a point of a frame stays there; without a point, in the middle.
function zoomBy(factor, frame, event) {
  const scale = Math.min(MOST_ZOOM, Math.max(1, zoom.scale * factor));
  const change = 1 / zoom.scale - 1 / scale;
  const { left, top, width, height } = frame ? frame.getBoundingClientRect() : {};
  const [x, y] = frame ? [(event.clientX - left) / width - 0.5, (event.clientY - top) / height - 0.5] : [0, 0];
  zoomTo(scale, zoom.x + x * change, zoom.y + y * change);
}

// Mouse, pen and fingers on a frame: one drags, two pinch.
function startDragging(frame) {
  const pointers = new Map();
  const spread = () => {
    const [one, other] = [...pointers.values()];
    return other ? Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) : 0;
  };
  frame.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, event);
    if (zoom.scale > 1 || pointers.size > 1) frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const before = spread();
    pointers.set(event.pointerId, event);
    const { width, height } = frame.getBoundingClientRect();
    const share = 1 / (zoom.scale * pointers.size);
    zoomTo(zoom.scale, zoom.x - ((event.clientX - last.clientX) / width) * share, zoom.y - ((event.clientY - last.clientY) / height) * share);
    if (before > 0) zoomBy(spread() / before, frame, event);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "pointerleave"]) {
    frame.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
}

// A wheel alone scrolls the view until the pictures are zoomed.
function onWheel(event) {
  if (!event.ctrlKey && !event.metaKey && zoom.scale === 1) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / (event.deltaMode ? 10 : 300)), event.currentTarget, event);
}

function startZoom() {
  for (const frame of $("sides").querySelectorAll(".frame")) {
    startDragging(frame);
    frame.addEventListener("wheel", onWheel, { passive: false });
    frame.addEventListener("dblclick", (event) => (zoom.scale > 1 ? zoomTo(1, 0.5, 0.5) : zoomBy(4, frame, event)));
    frame.addEventListener("dragstart", (event) => event.preventDefault());
  }
  $("zoom-in").addEventListener("click", () => zoomBy(ZOOM_STEP));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / ZOOM_STEP));
  $("zoom-reset").addEventListener("click", () => zoomTo(1, 0.5, 0.5));
}

function onKey(event) {
  if (!$("view").open || event.altKey || event.ctrlKey || event.metaKey) return;
  const actions = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    k: () => step(-1),
    j: () => step(1),
    b: () => $("show-boxes").click(),
    m: () => $("show-masks").click(),
    s: () => $("swap").click(),
    "+": () => zoomBy(ZOOM_STEP),
    "=": () => zoomBy(ZOOM_STEP),
    "-": () => zoomBy(1 / ZOOM_STEP),
    0: () => zoomTo(1, 0.5, 0.5),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function toggleLayers() {
  $("sides").classList.toggle("without-boxes", !$("show-boxes").checked);
  $("sides").classList.toggle("with-masks", $("show-masks").checked);
}

function startView() {
  listenToView();
  $("swap").addEventListener("click", () => $("sides").classList.toggle("swapped"));
  startZoom();
}

function startComparison() {
  for (const letter of comparison.letters) runs.set(letter, readIndex(`${letter}-`));
  for (const run of runs.values()) if (!index || run.imagesPerPrompt > index.imagesPerPrompt) index = run;
  startPairs();
  if (index) {
    startGallery();
    startView();
  }
  const parameters = readAddress();
  if (pair) applyFilters(() => openLinked(parameters, withPairs, readOwn));
}

startFiles(["comparison"], () => {
  comparison = entries("comparison", "comparison")[0][1];
  startFiles(comparison.letters.map((letter) => `${letter}-index`), startComparison);
});

// The large view: one image with its verdict, the judge's boxes over it, and its siblings.

const BOX_COLORS = ["#ffb454", "#5cc8ff", "#ff8fc7", "#4fe0a8", "#c8a8ff", "#f2e75c", "#ff8a6b", "#9fd356"];
const SVG = "http://www.w3.org/2000/svg";
const SIBLINGS = 64; // of a prompt with more images, those around this one
let current = null;
let opening = -1; // the row asked for: a slower one that arrives later is not shown

function boxColors(boxes) {
  const names = [...new Set(boxes.map((box) => box.name))];
  return new Map(names.map((name, number) => [name, BOX_COLORS[number % BOX_COLORS.length]]));
}

function boxLabel(box) {
  return [box.color, box.name].filter(Boolean).join(" ");
}

function drawBox(box, color, [width, height]) {
  const [x0, y0, x1, y1] = box.box;
  const frame = element("div", "box");
  frame.style.setProperty("--mark", color);
  const edges = { left: x0 / width, top: y0 / height, width: (x1 - x0) / width, height: (y1 - y0) / height };
  for (const [edge, share] of Object.entries(edges)) frame.style[edge] = `${100 * share}%`;
  const label = element("span", "label", boxLabel(box));
  label.append(element("b", "", formatScore(box.score)));
  if (y0 / height < 0.07) label.classList.add("inside");
  if ((x0 + x1) / 2 > width * 0.6) label.classList.add("right");
  frame.append(label);
  return frame;
}

// Column-major runs, background first, as one path of vertical strips.
function maskPath({ size: [height], counts }) {
  const strips = [];
  let offset = 0;
  counts.forEach((run, number) => {
    for (let left = number % 2 ? run : 0, from = offset; left > 0; ) {
      const y = from % height;
      const length = Math.min(left, height - y);
      strips.push(`M${Math.floor(from / height)} ${y}h1v${length}h-1z`);
      [left, from] = [left - length, from + length];
    }
    offset += run;
  });
  return strips.join("");
}

function shape(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function drawMask(box) {
  const [height, width] = box.mask.size;
  return shape("path", { d: maskPath(box.mask), transform: `scale(${1 / width} ${1 / height})` });
}

// Darkens the rest of the image: a tint on the objects would change the colours that were judged.
function showMasks(boxes) {
  const masked = boxes.filter((box) => box.mask);
  const hole = shape("mask", { id: "hole", maskContentUnits: "objectBoundingBox" });
  hole.append(shape("rect", { width: 1, height: 1, fill: "white" }), ...masked.map(drawMask));
  $("masks").replaceChildren(hole, shape("rect", { width: 1, height: 1, class: "dark", mask: "url(#hole)" }));
  $("masks-label").hidden = masked.length === 0;
}

function boxRow(box, color, frame) {
  const row = element("tr");
  const cell = element("td");
  const swatch = element("i", "swatch");
  swatch.style.setProperty("--mark", color);
  cell.append(swatch, box.name);
  if (box.note) cell.append(note(box.note));
  const colors = box.colors.map(([name, share]) => `${name} ${formatScore(share)}`).join(", then ");
  row.append(cell, element("td", "", colors || box.color || "–"), element("td", "number", formatScore(box.score)));
  row.addEventListener("pointerenter", () => frame.classList.add("highlighted"));
  row.addEventListener("pointerleave", () => frame.classList.remove("highlighted"));
  return row;
}

// Over the image, and in a table; a picture that is not beside the page has the table alone.
function showBoxes(image, found) {
  const boxes = image.src || image.leftOut ? found : [];
  const colors = boxColors(boxes);
  const frames = boxes.map((box) => drawBox(box, colors.get(box.name), image.size || [1, 1]));
  $("boxes").replaceChildren(...(image.src ? frames : []));
  showMasks(image.src ? boxes : []);
  $("box-rows").replaceChildren(...boxes.map((box, i) => boxRow(box, colors.get(box.name), frames[i])));
  $("view-boxes").hidden = boxes.length === 0;
}

function showImage(image) {
  $("frame").hidden = !image.src;
  $("view-missing").hidden = Boolean(image.src);
  $("view-missing").replaceChildren(...missingText(image));
  $("view-image").removeAttribute("src"); // or the last image stays while a large one loads
  if (!image.src) return;
  const [width, height] = image.size;
  $("frame").style.setProperty("--ratio", width / height);
  $("view-image").className = Math.max(width, height) < MIN_SMOOTH ? "pixelated" : "";
  $("view-image").alt = `Image for: ${image.prompt.text}`;
  $("view-image").src = image.full;
}

function missingText(image) {
  if (!image.leftOut) return [image.problem || "No image"];
  const command = element("code", "", `sar-eval report RUN --image ${image.key}`);
  return ["This picture is in the run folder, not beside this page. To have it here:", element("br"), command];
}

function reasons(image) {
  const clauses = [...(image.reason || "").split("\n"), image.problem].filter(Boolean);
  return clauses.map((clause) => element("li", "", clause));
}

function showDetails(image, details) {
  const lines = {
    key: image.key,
    seed: details.seed,
    task: readableName(image.prompt.task),
    split: image.prompt.split,
    score: image.score === null ? "" : formatScore(image.score),
    size: image.size ? `${image.size[0]} × ${image.size[1]}` : "",
    seconds: details.seconds ? details.seconds.toPrecision(3) : "",
    "tokens out of range": details.outOfRange || "",
  };
  const present = Object.entries(lines).filter(([, value]) => value !== "");
  $("details").replaceChildren(
    ...present.map(([name, value]) => {
      const line = element("div");
      line.append(element("dt", "", name), element("dd", "", value));
      return line;
    }),
  );
}

function sibling(image) {
  const item = element("li");
  const button = element("button", `sibling ${image.state}`);
  button.type = "button";
  button.title = STATES[image.state];
  button.setAttribute("aria-label", `Image ${image.index}: ${STATES[image.state]}`);
  if (image.number === current.number) button.setAttribute("aria-current", "true");
  button.append(imageFrame(image), badge(image));
  button.addEventListener("click", () => openView(image.number));
  item.append(button);
  return item;
}

function siblingRows(row) {
  const first = row - (row % index.imagesPerPrompt);
  const start = Math.max(first, Math.min(row - SIBLINGS / 2, first + index.imagesPerPrompt - SIBLINGS));
  return Array.from({ length: Math.min(SIBLINGS, index.imagesPerPrompt) }, (_, number) => start + number);
}

function showSiblings(rows) {
  $("view-siblings").hidden = rows.length < 2;
  $("siblings-title").textContent =
    rows.length < index.imagesPerPrompt ? `${rows.length} of this prompt's ${formatCount(index.imagesPerPrompt)} images` : "All images of this prompt";
  $("siblings").replaceChildren(...rows.map((row) => sibling(readRow(row))));
}

function neighbour(step) {
  const position = firstAtLeast(step > 0 ? current.number + 1 : current.number) - (step > 0 ? 0 : 1);
  return position >= 0 && position < shown.length ? shown[position] : -1;
}

function showPosition() {
  const position = positionOf(current.number);
  const total = formatCount(shown.length);
  $("view-position").textContent = position < 0 ? "outside the filter" : `${formatCount(position + 1)} of ${total}`;
  $("previous").disabled = neighbour(-1) < 0;
  $("next").disabled = neighbour(1) < 0;
}

function openView(row) {
  opening = row;
  const siblings = siblingRows(row);
  withRows("rows", siblings, () =>
    withRows("details", [row], () => {
      // A slow file: the rows' files may be gone again.
      if (opening === row) withRows("rows", siblings, () => showView(readRow(row), readDetails(row), siblings));
    }),
  );
}

function showView(image, details, siblings) {
  current = image;
  const { boxes, questions, rest } = readEvidence(details.evidence);
  $("view-verdict").replaceChildren(badge(image));
  $("view-prompt").textContent = image.prompt.text;
  $("view-prompt").classList.toggle("long", image.prompt.text.length > 120);
  $("view-reason").replaceChildren(...reasons(image));
  $("evidence").textContent = rest;
  $("view-evidence").hidden = !rest;
  showImage(image);
  showBoxes(image, boxes);
  showQuestions(questions, readParents(details.checks));
  showDetails(image, details);
  showSiblings(siblings);
  showPosition();
  if (!$("view").open) {
    $("view").showModal();
    $("view").focus(); // not the first button: arrow keys would put a ring around it
  }
  writeAddress(image);
}

function step(direction) {
  const next = neighbour(direction);
  if (next >= 0) openView(next);
}

function onClose() {
  opening = -1;
  writeAddress();
  const position = positionOf(current.number);
  const focusCard = () => {
    const opened = [...$("cards").querySelectorAll(".card")].find((one) => one.dataset.key === current.key);
    if (opened) opened.focus();
  };
  if (position >= 0 && (position < sheet || position >= sheetEnd())) turnTo(SHEET * Math.floor(position / SHEET));
  if (position >= rendered) addCards(position + 1, () => (focusCard(), observeEnd()));
  else focusCard();
}

function onKey(event) {
  if (!$("view").open || event.altKey || event.ctrlKey || event.metaKey) return;
  const actions = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    b: () => $("show-boxes").click(),
    m: () => $("show-masks").click(),
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function toggleLayers() {
  $("boxes").hidden = !$("show-boxes").checked;
  $("masks").toggleAttribute("hidden", !$("show-masks").checked);
}

function startView() {
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

async function openLinked(parameters) {
  const key = parameters.get("image");
  if (!key) return;
  const row = Number(parameters.get("row") || -1);
  const isRow = source.folder && Number.isInteger(row) && row >= 0 && row < index.rows;
  if (isRow) withRows("rows", [row], () => readRow(row).key === key && openView(row));
  else {
    const found = await findKey(key).catch((error) => (showLoadError(error), -1));
    if (found >= 0) openView(found);
  }
}

startRows(() => {
  startGallery();
  startView();
  const parameters = readAddress();
  applyFilters(() => openLinked(parameters));
});

// The large view: one image with its verdict, the judge's boxes over it, and its siblings.

const INKS = ["#ffb454", "#5cc8ff", "#ff8fc7", "#4fe0a8", "#c8a8ff", "#f2e75c", "#ff8a6b", "#9fd356"];
const SVG = "http://www.w3.org/2000/svg";
let current = null;

function inks(boxes) {
  const names = [...new Set(boxes.map((box) => box.name))];
  return new Map(names.map((name, number) => [name, INKS[number % INKS.length]]));
}

function told(box) {
  return [box.color, box.name].filter(Boolean).join(" ");
}

function drawBox(box, ink, [width, height]) {
  const [x0, y0, x1, y1] = box.box;
  const made = element("div", "box");
  made.style.setProperty("--mark", ink);
  const edges = { left: x0 / width, top: y0 / height, width: (x1 - x0) / width, height: (y1 - y0) / height };
  for (const [edge, share] of Object.entries(edges)) made.style[edge] = `${100 * share}%`;
  const label = element("span", "label", told(box));
  label.append(element("b", "", figure(box.score)));
  if (y0 / height < 0.07) label.classList.add("inside");
  if ((x0 + x1) / 2 > width * 0.6) label.classList.add("right");
  made.append(label);
  return made;
}

// Column-major runs, background first, as one path of vertical strips.
function maskPath({ size: [height], counts }) {
  const strips = [];
  let at = 0;
  counts.forEach((run, number) => {
    for (let left = number % 2 ? run : 0, from = at; left > 0; ) {
      const y = from % height;
      const length = Math.min(left, height - y);
      strips.push(`M${Math.floor(from / height)} ${y}h1v${length}h-1z`);
      [left, from] = [left - length, from + length];
    }
    at += run;
  });
  return strips.join("");
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawMask(box) {
  const [height, width] = box.mask.size;
  return shape("path", { d: maskPath(box.mask), transform: `scale(${1 / width} ${1 / height})` });
}

// The rest of the image goes dark; a tint on the objects would falsify the colours that were judged.
function showMasks(boxes) {
  const masked = boxes.filter((box) => box.mask);
  const hole = shape("mask", { id: "hole", maskContentUnits: "objectBoundingBox" });
  hole.append(shape("rect", { width: 1, height: 1, fill: "white" }), ...masked.map(drawMask));
  $("masks").replaceChildren(hole, shape("rect", { width: 1, height: 1, class: "dark", mask: "url(#hole)" }));
  $("masks-label").hidden = masked.length === 0;
}

function boxRow(box, ink, drawn) {
  const row = element("tr");
  const name = element("td");
  const swatch = element("i", "swatch");
  swatch.style.setProperty("--mark", ink);
  name.append(swatch, box.name);
  const colors = (box.colors || []).map(([color, share]) => `${color} ${figure(share)}`).join(", then ");
  row.append(name, element("td", "", colors || box.color || "–"), element("td", "number", figure(box.score)));
  row.addEventListener("pointerenter", () => drawn.classList.add("lit"));
  row.addEventListener("pointerleave", () => drawn.classList.remove("lit"));
  return row;
}

function showBoxes(image) {
  const boxes = image.src ? image.boxes || [] : [];
  const colors = inks(boxes);
  const drawn = boxes.map((box) => drawBox(box, colors.get(box.name), image.size));
  $("boxes").replaceChildren(...drawn);
  showMasks(boxes);
  $("box-rows").replaceChildren(...boxes.map((box, i) => boxRow(box, colors.get(box.name), drawn[i])));
  $("view-found").hidden = boxes.length === 0;
}

function showImage(image) {
  $("frame").hidden = !image.src;
  $("view-missing").hidden = Boolean(image.src);
  $("view-missing").textContent = image.problem || "No image";
  $("view-image").removeAttribute("src"); // or the last image stays while a large one loads
  if (!image.src) return;
  const [width, height] = image.size;
  $("frame").style.setProperty("--ratio", width / height);
  $("view-image").className = Math.max(width, height) < PIXELATED ? "pixelated" : "";
  $("view-image").alt = `Image for: ${image.prompt.text}`;
  $("view-image").src = image.full || image.src;
}

function reasons(image) {
  const clauses = [...(image.reason || "").split("\n"), image.problem].filter(Boolean);
  return clauses.map((clause) => element("li", "", clause));
}

function showDetails(image) {
  const lines = {
    key: image.key,
    seed: image.seed,
    task: readable(image.prompt.task),
    split: image.prompt.split,
    score: image.score === null || image.score === undefined ? "" : figure(image.score),
    size: image.size ? `${image.size[0]} × ${image.size[1]}` : "",
    seconds: image.seconds ? image.seconds.toPrecision(3) : "",
    "tokens out of range": image.outside || "",
  };
  const made = Object.entries(lines).filter(([, value]) => value !== "");
  $("details").replaceChildren(
    ...made.map(([name, value]) => {
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
  if (image === current) button.setAttribute("aria-current", "true");
  button.append(imageFrame(image), badge(image));
  button.addEventListener("click", () => openView(image));
  item.append(button);
  return item;
}

function showSiblings(image) {
  const family = images.filter((other) => other.prompt === image.prompt);
  $("view-siblings").hidden = family.length < 2;
  $("siblings").replaceChildren(...family.map(sibling));
}

function neighbour(step) {
  const ahead = step > 0 ? shown : [...shown].reverse();
  return ahead.find((other) => (other.number - current.number) * step > 0);
}

function showPlace() {
  const place = shown.indexOf(current);
  const total = shown.length.toLocaleString("en");
  $("view-place").textContent = place < 0 ? "outside the filter" : `${(place + 1).toLocaleString("en")} of ${total}`;
  $("previous").disabled = !neighbour(-1);
  $("next").disabled = !neighbour(1);
}

function openView(image) {
  current = image;
  $("view-verdict").replaceChildren(badge(image));
  $("view-prompt").textContent = image.prompt.text;
  $("view-prompt").classList.toggle("long", image.prompt.text.length > 120);
  $("view-reason").replaceChildren(...reasons(image));
  $("evidence").textContent = image.evidence || "";
  $("view-evidence").hidden = !image.evidence;
  showImage(image);
  showBoxes(image);
  showQuestions(image);
  showDetails(image);
  showSiblings(image);
  showPlace();
  if (!$("view").open) {
    $("view").showModal();
    $("view").focus(); // not the first button: arrow keys would put a ring around it
  }
  writeAddress(image.key);
}

function step(direction) {
  const next = neighbour(direction);
  if (next) openView(next);
}

function onClose() {
  writeAddress();
  const place = shown.indexOf(current);
  while (place >= added) addPage();
  const found = [...$("cards").querySelectorAll(".card")].find((one) => one.dataset.key === current.key);
  if (found) found.focus();
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
    const found = event.target.closest(".card");
    if (found) openView(images[Number(found.dataset.number)]);
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

startGallery();
startView();
const asked = readAddress();
apply();
const linked = asked && images.find((image) => image.key === asked);
if (linked) openView(linked);

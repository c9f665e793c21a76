// The judge's boxes and masks over an image, and their table.

const BOX_COLORS = ["#ffb454", "#5cc8ff", "#ff8fc7", "#4fe0a8", "#c8a8ff", "#f2e75c", "#ff8a6b", "#9fd356"];
const SVG = "http://www.w3.org/2000/svg";

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
// `name` is of this image's mask, and no other's on the page.
function darkening(boxes, name) {
  if (boxes.length === 0) return [];
  const hole = shape("mask", { id: name, maskContentUnits: "objectBoundingBox" });
  hole.append(shape("rect", { width: 1, height: 1, fill: "white" }), ...boxes.map(drawMask));
  return [hole, shape("rect", { width: 1, height: 1, class: "dark", mask: `url(#${name})` })];
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

// Draws boxes and masks over an image, and the boxes' table; a picture that is not beside the page has the table
// alone. `layers` are the elements {boxes, masks, rows}. Returns how many boxes and masks there are.
function drawBoxes(image, found, layers, name) {
  const boxes = image.src || image.leftOut ? found : [];
  const colors = boxColors(boxes);
  const frames = boxes.map((box) => drawBox(box, colors.get(box.name), image.size || [1, 1]));
  const masked = image.src ? boxes.filter((box) => box.mask) : [];
  layers.boxes.replaceChildren(...(image.src ? frames : []));
  layers.masks.replaceChildren(...darkening(masked, name));
  layers.rows.replaceChildren(...boxes.map((box, i) => boxRow(box, colors.get(box.name), frames[i])));
  return { boxes: boxes.length, masks: masked.length };
}

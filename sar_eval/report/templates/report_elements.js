// Small pieces that every page makes. Prompts, reasons and names are untrusted text: they are inserted through
// textContent and attributes only, never as markup.

const MIN_SMOOTH = 128; // pixels; smaller images are enlarged without smoothing
const STATES = { pass: "Pass", fail: "Fail", scored: "Scored", none: "No verdict" };

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

// What a card says of a verdict, and the clauses of it in a large view.
function cardReason(image) {
  return image.reason || (image.state === "none" ? image.problem || "" : "");
}

function reasons(image) {
  const clauses = [...(image.reason || "").split("\n"), image.problem].filter(Boolean);
  return clauses.map((clause) => element("li", "", clause));
}

// Lines of a description list, without those of no value.
function detailLines(lines) {
  const present = (Array.isArray(lines) ? lines : Object.entries(lines)).filter(([, value]) => value !== "");
  return present.map(([name, value]) => {
    const line = element("div");
    line.append(element("dt", "", name), element("dd", "", value));
    return line;
  });
}

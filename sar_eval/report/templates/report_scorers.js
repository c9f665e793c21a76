// What scorers say of the pictures: on cards, in the large view, and each one's highest and lowest pictures.

const NO_SCORE = "no score";

// Numbers by row as `ScorerColumn.to_json` wrote them; NaN is none.
function readScorers(stored) {
  return stored.map(({ name, values, best, worst }) => {
    const numbers = decode(values, Float32Array);
    const [low, high] = [numbers[worst[0]], numbers[best[0]]];
    return { name, values: numbers, low, high, ends: { best, worst } };
  });
}

// In four digits, as the server writes them: 0.2831, 21.34, 103.5.
function formatNumber(value) {
  if (Number.isNaN(value)) return NO_SCORE;
  if (Math.abs(value) >= 1e5) return formatCount(Math.round(value));
  const digits = value === 0 ? 0 : Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 9)).replace("-", "\u2212");
}

function scoreLine(scorer, row) {
  const value = scorer.values[row];
  const line = element("span", `score-line${Number.isNaN(value) ? " missing-score" : ""}`);
  if (scorer.name === filters.scorer) line.classList.add("chosen");
  line.append(element("span", "score-name", scorer.name), element("span", "score-value", formatNumber(value)));
  return line;
}

// The lines of a card; the chosen scorer's first.
function scoreLines(row) {
  const chosen = index.scorers.filter(({ name }) => name === filters.scorer);
  const others = index.scorers.filter(({ name }) => name !== filters.scorer);
  return [...chosen, ...others].map((scorer) => scoreLine(scorer, row));
}

// Of the large view: pairs, as a scorer may have any name.
function scoreDetails(row) {
  return index.scorers.map(({ name, values }) => [name, formatNumber(values[row])]);
}

function thumb(image, value) {
  const item = element("li");
  const button = element("button", "thumb");
  button.type = "button";
  button.title = image.prompt.text;
  button.setAttribute("aria-label", `${formatNumber(value)}: ${image.prompt.text}`);
  button.append(imageFrame(image), element("span", "", formatNumber(value)));
  button.addEventListener("click", () => openView(image.number));
  item.append(button);
  return item;
}

function showExtremes() {
  for (const panel of document.querySelectorAll(".scorer")) {
    const scorer = index.scorers.find(({ name }) => name === panel.dataset.scorer);
    for (const list of panel.querySelectorAll(".thumbs")) {
      const rows = scorer.ends[list.dataset.end];
      withRows("rows", rows, () => list.replaceChildren(...rows.map((row) => thumb(readRow(row), scorer.values[row]))));
    }
  }
}

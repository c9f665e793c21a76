// The gallery's filter and order by a scorer's number. A picture without one is kept, last, and counted; it leaves
// only when the reader says so.

const RANGE_STEPS = 200; // of the sliders

const chosenScorer = () => index.scorers.find(({ name }) => name === filters.scorer);

// A limit that the reader gave, or an end of what there is.
function limitOf(scorer, end) {
  const given = filters[end] === "" ? NaN : Number(filters[end]);
  return Number.isFinite(given) ? given : end === "min" ? -Infinity : Infinity;
}

// Says of a row whether the range leaves it out; null if no row is.
function outsideRange() {
  const scorer = chosenScorer();
  if (!scorer) return null;
  const [low, high] = [limitOf(scorer, "min"), limitOf(scorer, "max")];
  return (row) => {
    const value = scorer.values[row];
    return Number.isNaN(value) ? filters.unscored === "hide" : value < low || value > high;
  };
}

// Whether `shown` is in suite order: a range puts those without a number last, too.
const inSuiteOrder = () => !chosenScorer() || !(filters.sort || filters.min || filters.max);

// The rows in the order asked for, those without a number last; equal ones stay in suite order.
function inOrder(rows) {
  if (inSuiteOrder()) return rows;
  const scorer = chosenScorer();
  const { values } = scorer;
  const sign = { low: 1, high: -1 }[filters.sort] || 0;
  const known = rows.filter((row) => !Number.isNaN(values[row]));
  const unknown = rows.filter((row) => Number.isNaN(values[row]));
  known.sort((one, other) => sign * (values[one] - values[other]) || one - other);
  const ordered = new Uint32Array(rows.length);
  ordered.set(known);
  ordered.set(unknown, known.length);
  return ordered;
}

const stepOf = ({ low, high }, value) => Math.round((RANGE_STEPS * (value - low)) / (high - low || 1));
const clamp = (value) => Math.min(RANGE_STEPS, Math.max(0, value));

// Puts what the filters say into the controls.
function showRange() {
  if (!$("scorer")) return;
  const scorer = chosenScorer();
  $("scorer").value = scorer ? scorer.name : "";
  $("range").hidden = !scorer;
  if (!scorer) return;
  for (const [end, step, text] of [["min", 0, scorer.low], ["max", RANGE_STEPS, scorer.high]]) {
    $(end).value = Number.isFinite(Number(filters[end])) ? filters[end] : "";
    $(end).placeholder = formatNumber(text);
    const slider = $(`${end}-slider`);
    slider.value = filters[end] === "" ? step : clamp(stepOf(scorer, limitOf(scorer, end)));
    slider.setAttribute("aria-valuetext", filters[end] || formatNumber(text));
  }
  $("range").style.setProperty("--from", $("min-slider").value / RANGE_STEPS);
  $("range").style.setProperty("--to", $("max-slider").value / RANGE_STEPS);
  $("sort").value = filters.sort;
  $("unscored").checked = filters.unscored !== "hide";
  const without = scorer.values.reduce((sum, value) => sum + Number(Number.isNaN(value)), 0);
  $("unscored-label").hidden = without === 0;
  $("unscored-count").textContent = `Keep ${formatCount(without)} of ${formatCount(index.rows)} with no score`;
}

// A slider gives the limit that it stands for; at its own end there is none. The two do not pass each other.
function readSlider(slider, scorer) {
  const end = slider.id.replace("-slider", "");
  const other = Number($(end === "min" ? "max-slider" : "min-slider").value);
  const step = end === "min" ? Math.min(Number(slider.value), other) : Math.max(Number(slider.value), other);
  slider.value = step;
  const isOpen = step === (end === "min" ? 0 : RANGE_STEPS);
  $(end).value = isOpen ? "" : Number((scorer.low + (step / RANGE_STEPS) * (scorer.high - scorer.low)).toPrecision(4));
}

function readRange(event) {
  if (!$("scorer")) return;
  const before = filters.scorer;
  filters.scorer = $("scorer").value;
  const scorer = chosenScorer();
  if (event && event.target.type === "range" && scorer) readSlider(event.target, scorer);
  const isOther = filters.scorer !== before; // its limits mean nothing for this one
  for (const name of ["min", "max"]) filters[name] = isOther || !scorer ? "" : $(name).value;
  filters.sort = scorer ? $("sort").value : "";
  filters.unscored = scorer && !$("unscored").checked ? "hide" : "";
  showRange();
}

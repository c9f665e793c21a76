// A prompt's question graph as a tree with the judge's answers: each question under the first that it
// hangs on, with a word on the others.

function note(text) {
  return element("p", "note", text);
}

function listed(ids) {
  const last = ids[ids.length - 1];
  return ids.length < 2 ? `question ${last}` : `questions ${ids.slice(0, -1).join(", ")} and ${last}`;
}

function isZeroed(question) {
  return question.yes && question.zeroed_by.length > 0;
}

// The mark says how the question counts, the word beside it what was answered.
function answerBadge(question) {
  const scored = question.counted ? "pass" : isZeroed(question) ? "zeroed" : "fail";
  const state = question.counted === null ? "none" : scored;
  return element("span", `badge ${state}`, question.answer || "no answer");
}

function questionItem(question, others) {
  const item = element("li");
  const line = element("p", "asked");
  const text = element("span", "text", `${question.id}. ${question.text}`);
  text.dir = "auto";
  line.append(text, answerBadge(question));
  if (question.soft !== null) line.append(element("span", "soft", `p(yes) ${figure(question.soft)}`));
  item.append(line);
  if (isZeroed(question)) {
    item.append(note(`Counts as no, because ${listed(question.zeroed_by)} ${question.zeroed_by.length > 1 ? "do" : "does"}.`));
  }
  if (others.length) item.append(note(`Hangs on ${listed(others)} too.`));
  if (question.problem) item.append(note(question.problem));
  if (question.truncated) item.append(note("Cut short: longer than the judge reads."));
  return item;
}

function questionTree(questions, parents) {
  const asked = [...questions].sort((one, other) => one.id - other.id);
  const ids = new Set(asked.map((question) => question.id));
  const above = (question) => (parents[question.id] || []).filter((id) => id !== question.id);
  const place = new Map(asked.map((question) => [question, above(question).find((id) => ids.has(id))]));
  const drawn = new Set();

  function branch(question) {
    drawn.add(question);
    const item = questionItem(question, above(question).filter((id) => id !== place.get(question)));
    const below = element("ul");
    for (const child of asked) {
      if (place.get(child) === question.id && !drawn.has(child)) below.append(branch(child));
    }
    if (below.childElementCount) item.append(below);
    return item;
  }

  const roots = asked.filter((question) => place.get(question) === undefined).map(branch);
  // Questions that hang on one another in a circle have no root; the first of them stands for one.
  for (const question of asked) if (!drawn.has(question)) roots.push(branch(question));
  return roots;
}

function showQuestions(image) {
  const questions = image.questions || [];
  const counted = questions.filter((question) => question.counted).length;
  $("view-questions").hidden = questions.length === 0;
  const scored = questions.every((question) => question.counted !== null);
  $("questions-counted").textContent = scored ? `${counted} of ${questions.length} count as yes` : "not scored";
  $("questions").replaceChildren(...questionTree(questions, image.prompt.parents));
}


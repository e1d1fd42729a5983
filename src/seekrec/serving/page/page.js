// SPDX-License-Identifier: Apache-2.0
// The shop: history, recommendations and search of one visitor, side by side. Text from the server is data: it goes
// into text nodes alone.

const byId = (id) => document.getElementById(id);
const NUM_ANSWERS = 12;
const TOKEN = "seekrec-token";
const state = { user: "", query: "", facets: null, models: [], history: [], shown: 0 };

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function say(text) { byId("status").textContent = text; }

async function ask(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401) {
    byId("token-dialog").showModal();
    throw new Error("The server asks for a token.");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.detail?.map((one) => one.msg).join(" ") ?? `The server said ${answer.status}.`);
  return content;
}

// One error shows as one line; what was there stays.
function guarded(work) {
  return async (...args) => {
    try { return await work(...args); } catch (error) { say(error.message); return undefined; }
  };
}

// ---- cards ----

function hueOf(text) {
  let hash = 0;
  for (const character of text) hash = (hash * 31 + character.codePointAt(0)) % 360;
  return hash;
}

function card(item, note, onClick, isNew = false) {
  const title = item.title ?? item.item_id;
  const poster = make("span", { className: "poster", ariaHidden: "true" }, [...title][0] ?? "?");
  poster.style.setProperty("--hue", hueOf(item.item_id));
  const words = make("span", { className: "words" }, make("b", {}, title));
  if (note) words.append(make("span", {}, note));
  if (isNew) words.append(make("span", { className: "new" }, "new here"));
  const button = make("button", { className: "card", type: "button" }, poster, words);
  button.addEventListener("click", onClick);
  return button;
}

function when(seconds) {
  return seconds ? new Date(seconds * 1000).toISOString().slice(0, 10) : "";
}

async function showHistory() {
  const history = state.user ? (await ask("GET", `users/${encodeURIComponent(state.user)}/history`)).events : [];
  state.history = history;
  byId("history-count").textContent = history.length ? `${history.length} events, the latest first` : "";
  byId("no-history").hidden = history.length > 0;
  byId("history-items").hidden = history.length === 0;
  byId("history-items").replaceChildren(...history.slice(-30).reverse().map((event) => {
    const note = event.query ? `searched for “${event.query}”` : when(event.timestamp);
    const item = { item_id: event.item_id ?? "", title: event.item_id ? event.title ?? event.item_id : event.query };
    return make("li", {}, card(item, note, event.item_id ? () => explain(item, null) : () => searchFor(event.query)));
  }));
}

// ---- questions ----

function filters() {
  const where = {};
  const chosen = [...document.querySelectorAll("#categories input:checked")].map((box) => box.value);
  if (chosen.length) where.in = { categories: chosen };
  for (const box of document.querySelectorAll(".range")) {
    const [lowest, highest] = [...box.querySelectorAll("input")].map((input) => Number(input.value));
    const { least, most, column } = box.dataset;
    if (lowest > Number(least) || highest < Number(most)) {
      where.range = { ...where.range, [column]: { lowest: Math.min(lowest, highest), highest: Math.max(lowest, highest) } };
    }
  }
  if (byId("available").checked && byId("available-day").value) {
    where.available_at = Math.floor(Date.parse(byId("available-day").value) / 1000);
  }
  return Object.keys(where).length ? where : null;
}

function question() {
  const asked = { top_k: NUM_ANSWERS, where: filters() };
  if (state.user && state.history.length) asked.user_id = state.user;
  return asked;
}

function answerList(answer, query) {
  if (!answer.items.length) return make("p", {}, "Nothing fits.");
  return make("ol", { className: "list" }, ...answer.items.map((item) => {
    const isNew = state.added?.has(item.item_id) ?? false;
    return make("li", {}, card(item, null, () => explain(item, query), isNew));
  }));
}

async function column(path, asked, model, query) {
  const answer = await ask("POST", path, model ? { ...asked, model } : asked);
  const heading = byId("other-model").value ? [make("h3", {}, answer.model)] : [];
  const isMended = query && answer.read_as && answer.read_as !== query;
  const read = isMended ? [make("p", {}, `Read as “${answer.read_as}”.`)] : [];
  return make("div", {}, ...heading, ...read, answerList(answer, query));
}

const showAnswers = guarded(async () => {
  const number = ++state.shown;
  say("Asking the model …");
  const other = byId("other-model").value;
  const models = other ? ["", other] : [""];
  const asked = question();
  const exclude = byId("seen").checked ? { exclude_seen: false } : {};
  const forYou = await Promise.all(models.map((model) => column("recommend", { ...asked, ...exclude }, model, null)));
  const found = state.query
    ? await Promise.all(models.map((model) => column("search", { ...asked, query: state.query }, model, state.query)))
    : [];
  if (number !== state.shown) return; // asked again meanwhile
  byId("for-you").replaceChildren(...forYou);
  byId("found").replaceChildren(...found);
  byId("found-title").textContent = state.query ? `Found for “${state.query}”` : "Found";
  byId("no-query").hidden = Boolean(state.query);
  say(state.query ? `Answers for “${state.query}” are there.` : "Recommendations are there.");
});

const searchFor = guarded(async (query) => {
  state.query = query.trim();
  byId("query").value = state.query;
  closeSuggestions();
  await showAnswers();
  if (state.query) byId("answers").focus();
});

// ---- suggestions ----

let waiting;

function closeSuggestions() {
  clearTimeout(waiting);
  byId("suggestions").hidden = true;
  byId("query").setAttribute("aria-expanded", "false");
  byId("query").removeAttribute("aria-activedescendant");
}

const suggest = guarded(async () => {
  const typed = byId("query").value;
  const asked = { prefix: typed, top_k: 6 };
  if (state.user && state.history.length) asked.user_id = state.user;
  const [{ queries }, { items }] = await Promise.all([
    ask("POST", "suggest", asked),
    typed.trim() ? ask("GET", `items?limit=4&search=${encodeURIComponent(typed.trim())}`) : { items: [] },
  ]);
  if (typed !== byId("query").value || document.activeElement !== byId("query")) return;
  const texts = [...new Set([...queries, ...items.map((item) => item.title).filter(Boolean)])];
  byId("suggestions").replaceChildren(...texts.map((text, number) => {
    const line = make("li", { id: `suggestion-${number}`, role: "option", ariaSelected: "false" }, text);
    line.addEventListener("mousedown", (event) => { event.preventDefault(); searchFor(text); });
    return line;
  }));
  byId("suggestions").hidden = texts.length === 0;
  byId("query").setAttribute("aria-expanded", String(texts.length > 0));
});

function moveInSuggestions(step) {
  const lines = [...byId("suggestions").children];
  if (byId("suggestions").hidden || !lines.length) return;
  const now = lines.findIndex((line) => line.ariaSelected === "true");
  const next = (now + step + lines.length + (now < 0 && step < 0 ? 1 : 0)) % lines.length;
  lines.forEach((line, number) => { line.ariaSelected = String(number === next); });
  byId("query").setAttribute("aria-activedescendant", lines[next].id);
  byId("query").value = lines[next].textContent;
}

// ---- why ----

let opened = null;

const explain = guarded(async (item, query) => {
  const asked = { item_id: item.item_id, query };
  if (state.user && state.history.length) asked.user_id = state.user;
  const why = await ask("POST", "why", asked);
  opened = { item, query };
  byId("why-title").textContent = item.title ?? item.item_id;
  byId("why-about").textContent = why.categories.join(" · ");
  const parts = [];
  if (why.words.length) {
    parts.push(make("h3", {}, "Words of your query that it has"));
    parts.push(make("p", {}, ...why.words.flatMap((word) => [make("mark", {}, word), " "])));
  }
  for (const near of why.nearest) {
    if (!near.items.length) continue;
    parts.push(make("h3", {}, near.by === "text" ? "Most like it in what you did, by text" : "Most like it in what you did, by who else did"));
    const lines = near.items.map((one) => {
      const share = make("meter", { min: 0, max: 1, value: Math.max(0, one.similarity), ariaLabel: `similarity ${one.similarity.toFixed(2)}` });
      return [make("span", {}, one.title ?? one.item_id), share];
    });
    parts.push(make("div", { className: "near" }, ...lines.flat()));
  }
  for (const path of why.identifiers) {
    parts.push(make("h3", {}, `Its identifier (${path.view}): from many titles to this one`));
    parts.push(make("ol", { className: "path" }, ...path.levels.map((level) =>
      make("li", {}, make("code", {}, String(level.code)), ` ${level.num_items} ${level.num_items === 1 ? "title" : "titles"}`))));
    if (path.siblings.length) {
      parts.push(make("p", {}, "Next to it:"));
      parts.push(make("ul", {}, ...path.siblings.map((one) => make("li", {}, one.title ?? one.item_id))));
    }
  }
  if (!parts.length) parts.push(make("p", {}, "Nothing of your history or query is like it: the model knows it from others."));
  byId("why-body").replaceChildren(...parts);
  byId("why").showModal();
});

const watch = guarded(async () => {
  const { item, query } = opened;
  const now = Math.floor(Date.now() / 1000);
  const event = {
    event_id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, user_id: state.user, item_id: item.item_id, timestamp: now,
    ...(query ? { behavior: "search", query } : {}),
  };
  await ask("POST", "events", { events: [event] });
  byId("why").close();
  await showHistory();
  await showAnswers();
});

// ---- filters, models, new titles ----

function showFacets(facets) {
  state.facets = facets;
  byId("categories").hidden = facets.categories.length === 0;
  document.querySelector("#categories .checks").replaceChildren(...facets.categories.map((one) => {
    const box = make("input", { type: "checkbox", value: one.name });
    return make("label", { className: "check" }, box, make("span", {}, `${one.name} `, make("small", {}, String(one.num_items))));
  }));
  byId("category-names").replaceChildren(...facets.categories.map((one) => make("option", { value: one.name })));
  byId("ranges").replaceChildren(...facets.ranges.map(({ column: name, lowest, highest }) => {
    const slider = (label, value) => {
      const shown = make("output", {}, String(value));
      const isWhole = Number.isInteger(lowest) && Number.isInteger(highest);
      const input = make("input", { type: "range", min: lowest, max: highest, step: isWhole ? "1" : "any" });
      input.defaultValue = value; // what a reset goes back to
      input.value = value;
      input.addEventListener("input", () => { shown.textContent = input.value; });
      return make("label", {}, make("span", {}, `${label} `, shown), input);
    };
    const box = make("fieldset", { className: "range" }, make("legend", {}, name), slider("from", lowest), slider("to", highest));
    Object.assign(box.dataset, { column: name, least: lowest, most: highest });
    return box;
  }));
  byId("availability").hidden = !facets.has_lifetimes;
}

const addTitle = guarded(async () => {
  const [title, category] = [byId("add-title").value.trim(), byId("add-category").value.trim()];
  if (!title) return;
  const item = { item_id: `page-${Date.now().toString(36)}`, title };
  if (category) item.categories = [[...(state.facets.root ? [state.facets.root] : []), category]];
  await ask("PUT", "items", { items: [item] });
  state.added = new Set([...(state.added ?? []), item.item_id]);
  byId("add-form").reset();
  await searchFor(title);
});

const changeUser = guarded(async () => {
  state.user = byId("user").value.trim();
  const address = new URL(location.href);
  address.searchParams.set("user", state.user);
  history.replaceState(null, "", address);
  await showHistory();
  await showAnswers();
});

const start = guarded(async () => {
  if (matchMedia("(max-width: 48rem)").matches) byId("filters").open = false;
  const health = await ask("GET", "health");
  byId("model-line").textContent =
    `${health.model} (${health.model_version}) answers from ${health.num_items} titles, change ${health.catalog_version} of the catalogue.`;
  const [facets, { users }, { models }] = await Promise.all([ask("GET", "facets"), ask("GET", "users"), ask("GET", "models")]);
  showFacets(facets);
  byId("users").replaceChildren(...users.map((name) => make("option", { value: name })));
  const others = models.filter((name) => name !== health.model);
  byId("compare").hidden = others.length === 0;
  byId("other-model").append(...others.map((name) => make("option", { value: name }, name)));
  byId("user").value = new URL(location.href).searchParams.get("user") ?? users[0] ?? "visitor";
  await changeUser();
});

byId("search").addEventListener("submit", (event) => { event.preventDefault(); searchFor(byId("query").value); });
byId("query").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(suggest, 150); });
byId("query").addEventListener("focus", () => { clearTimeout(waiting); waiting = setTimeout(suggest, 150); });
byId("query").addEventListener("blur", closeSuggestions);
byId("query").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    moveInSuggestions(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Escape") closeSuggestions();
});
byId("user").addEventListener("change", changeUser);
byId("filter-form").addEventListener("change", showAnswers);
byId("filter-form").addEventListener("reset", () => setTimeout(() => {
  for (const input of document.querySelectorAll(".range input")) input.dispatchEvent(new Event("input"));
  showAnswers();
}));
byId("other-model").addEventListener("change", showAnswers);
byId("add-form").addEventListener("submit", (event) => { event.preventDefault(); addTitle(); });
byId("watch").addEventListener("click", watch);
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value);
  byId("token-dialog").close();
  start();
});
start();

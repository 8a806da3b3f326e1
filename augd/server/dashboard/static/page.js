// Draws the reports of /events. It changes only what differs, so focus, selection and the position of
// a screen reader stay. Text is inserted as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const percent = (share) => `${Math.round(100 * share)}%`;
const whole = (number) => Math.round(number).toLocaleString("en");
const POINTS_MAX = 720;
const BAD_MAX = 100;
const SLOTS = ["sent", "ready", "filling", "draining", "free"];
const NAMES = { sent: "with the trainer", ready: "finished", filling: "being made", draining: "being freed", free: "free" };

let points = [];
let looking = null; // {stream, count} while a batch is shown
let withPhotos = false;
const everBad = new Map();

function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// One row of `body` for each of `items`, kept by key.
function rows(body, items, key, create, update) {
  const kept = new Map([...body.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let node = kept.get(name);
    if (!node) {
      node = create(item);
      node.dataset.key = name;
    }
    kept.delete(name);
    update(node, item);
    if (body.children[place] !== node) body.insertBefore(node, body.children[place] || null);
  });
  for (const node of kept.values()) node.remove();
}

function bar(id, share) {
  const node = byId(id);
  const value = Math.round(100 * share);
  node.setAttribute("aria-valuenow", String(value));
  node.firstElementChild.style.width = `${value}%`;
  say(byId(`${id}-text`), `${value}%`);
}

function draw(report) {
  const served = Object.entries(report.datasets).map(([name, one]) => `${name} (${whole(one.num_samples)} images)`);
  say(byId("served"), served.join(", "));
  say(byId("verdict"), report.who_waits);
  const hasStreams = report.streams.length > 0;
  bar("busy", report.busy_share);
  bar("wait", Math.max(0, report.waited_share - report.fetch_share));
  bar("fetch", report.fetch_share);
  bar("transfer", report.transfer_share);
  bar("train", hasStreams && report.images_per_s ? Math.max(0, 1 - report.waited_share - report.transfer_share) : 0);
  drawTroubles(report);
  drawPace(report);
  drawStreams(report);
  drawProducers(report);
  drawBad(report);
}

function drawTroubles(report) {
  const said = [];
  if (report.is_draining) said.push("The daemon is draining: it ends, and opens no more streams.");
  if (report.unhealthy) said.push(`Producers keep dying: ${report.unhealthy}`);
  if (report.is_cut) said.push("The daemon's answer was too large: some entries are left out.");
  rows(byId("troubles"), said, (text) => text, (text) => make("li", text), () => {});
}

function drawPace(report) {
  points = points.concat(report.points).slice(-POINTS_MAX);
  say(byId("rate"), whole(report.images_per_s));
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const highest = Math.max(1, ...points.map((point) => point[1]));
  const span = Math.max(1, last - first);
  const at = ([time, rate]) => `${(600 * (time - first) / span).toFixed(1)},${(135 - 130 * rate / highest).toFixed(1)}`;
  byId("line").setAttribute("points", points.map(at).join(" "));
  const minutes = span < 90 ? `${Math.round(span)} s` : `${Math.round(span / 60)} min`;
  say(byId("since"), `${minutes} ago`);
  say(byId("highest"), `highest ${whole(highest)}`);
  byId("chart").setAttribute("aria-label", `Images per second over ${minutes}: ${whole(report.images_per_s)} now, ${whole(highest)} at most`);
}

function drawStreams(report) {
  byId("no-streams").hidden = report.streams.length > 0;
  rows(byId("streams").tBodies[0], report.streams, (one) => one.stream, createStream, (row, one) => {
    const cells = row.children;
    say(cells[2], one.is_shared ? `${one.dataset}, shared by ${one.readers.length}` : one.dataset);
    say(cells[3], String(one.epoch));
    say(cells[4], whole(one.position));
    say(cells[5], whole(one.images_per_s));
    say(cells[6], percent(one.waited_share));
    drawSlots(cells[7], one.slots);
    say(cells[8], String(Math.max(0, ...one.readers.map((reader) => reader[4]))));
    say(cells[9], whole(one.bad));
  });
}

function createStream(one) {
  const row = make("tr");
  const head = make("th", String(one.stream));
  head.scope = "row";
  const button = make("button", "Look");
  button.type = "button";
  button.setAttribute("aria-label", `Look at the batch of stream ${one.stream}`);
  button.addEventListener("click", () => look(one.stream, 24, true));
  const cell = make("td");
  cell.append(button);
  row.append(head, cell);
  for (const kind of ["", "", "number", "number", "number", "", "number", "number"]) row.append(make("td", "", kind));
  return row;
}

function drawSlots(cell, slots) {
  const states = SLOTS.flatMap((state) => Array(slots[state] || 0).fill(state));
  const text = SLOTS.filter((state) => slots[state]).map((state) => `${slots[state]} ${NAMES[state]}`).join(", ");
  if (cell.dataset.text === text) return;
  cell.dataset.text = text;
  const shown = make("span");
  shown.setAttribute("role", "img");
  shown.setAttribute("aria-label", text);
  shown.title = text;
  shown.append(...states.slice(0, 32).map((state) => make("span", undefined, `slot ${state}`)));
  cell.replaceChildren(shown);
}

function drawProducers(report) {
  const there = new Map(report.producers.map((one) => [one.number, one]));
  const own = Array.from({ length: report.num_places }, (_, number) => there.get(number) || { number, state: "gone" });
  const lent = report.producers.filter((one) => one.number >= report.num_places);
  const places = report.is_cut ? report.producers : [...own, ...lent];
  const died = report.restarts === 1 ? "1 producer died and was replaced" : `${report.restarts} producers died and were replaced`;
  const daemons = report.daemon_deaths ? ` The daemon crashed and was restarted ${report.daemon_deaths}×; the last time by ${report.last_daemon_death}.` : "";
  say(byId("restarts"), (report.restarts ? `${died} since the daemon started; the last: ${report.last_death}.` : "No producer has died.") + daemons);
  rows(byId("producers").tBodies[0], places, (one) => one.number, (one) => {
    const row = make("tr");
    const head = make("th", String(one.number));
    head.scope = "row";
    row.append(head, make("td"));
    for (let count = 0; count < 5; count += 1) row.append(make("td", "", "number"));
    return row;
  }, (row, one) => {
    const cells = row.children;
    say(cells[1], one.state === "gone" ? "restarts soon" : one.state);
    cells[1].className = `state-${one.state}`;
    const isThere = one.state === "ready";
    say(cells[2], one.pid ? `${one.pid}${one.host ? ` on ${one.host}` : ""}` : "");
    say(cells[3], isThere ? whole(one.images_per_s) : "");
    say(cells[4], isThere ? percent(one.busy_share) : "");
    say(cells[5], isThere ? whole(one.rows) : "");
    say(cells[6], isThere ? String(one.leases) : "");
  });
}

// Bad and quarantined samples, once each. A report has only the last few, so earlier ones are kept.
function blamed(report) {
  const found = everBad;
  for (const one of report.streams) {
    for (const [sample, path, reason] of one.last_bad) found.set(`${one.dataset}/${sample}`, { dataset: one.dataset, sample, path, reason });
  }
  for (const [dataset, one] of Object.entries(report.datasets)) {
    for (const [sample, path] of one.quarantined) {
      found.set(`${dataset}/${sample}`, { dataset, sample, path, reason: "quarantined: it ended its producer twice, and is masked from now on" });
    }
  }
  for (const key of [...found.keys()].slice(0, -BAD_MAX)) found.delete(key);
  return [...found.values()].sort((a, b) => a.dataset.localeCompare(b.dataset) || a.sample - b.sample);
}

function drawBad(report) {
  const found = blamed(report);
  byId("no-bad").hidden = found.length > 0;
  byId("show-photos").hidden = found.length === 0 || withPhotos;
  rows(byId("bad"), found, (one) => `${one.dataset}/${one.sample}`, (one) => {
    const item = make("li", undefined, "plain");
    item.append(make("p"));
    return item;
  }, (item, one) => {
    say(item.querySelector("p"), `${one.dataset}, sample ${one.sample} (${one.path}): ${one.reason}`);
    if (withPhotos && !item.dataset.asked) showPhoto(item, one);
  });
}

async function showPhoto(item, one) {
  item.dataset.asked = "yes";
  const url = `samples/${encodeURIComponent(one.dataset)}/${one.sample}.jpg`;
  let answer;
  try { answer = await fetch(url); } catch { return; }
  if (answer.headers.get("content-type") !== "image/jpeg") {
    item.append(make("p", `No image: ${await answer.text()}`, "empty"));
    return;
  }
  const picture = make("img");
  picture.alt = `Sample ${one.sample} of ${one.dataset}, as far as it can be read`;
  picture.src = URL.createObjectURL(await answer.blob());
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  item.classList.remove("plain");
  item.prepend(picture);
}

async function ask(url) {
  try {
    return await (await fetch(url)).json();
  } catch {
    return { problem: "the daemon does not answer" };
  }
}

async function look(stream, count, isNew) {
  looking = { stream, count };
  byId("batch").hidden = false;
  say(byId("drawn"), "");
  if (isNew) byId("h-batch").focus();
  const batch = await ask(`streams/${stream}/batch.json?count=${count}`);
  if (batch.problem) {
    say(byId("batch-text"), `No images: ${batch.problem}.`);
    byId("pictures").replaceChildren();
    return;
  }
  say(byId("batch-text"), `Batch ${batch.number} of epoch ${batch.epoch}, stream ${batch.stream}, ${batch.dataset}: ${batch.pictures.length} of ${batch.rows} rows, as they are in the slot. Choose an image to see the parameters that were drawn for it.`);
  byId("batch-more").hidden = batch.pictures.length >= Math.min(64, batch.rows);
  byId("pictures").replaceChildren(...batch.pictures.map((one) => createPicture(batch, one)));
}

function createPicture(batch, one) {
  const item = make("li");
  const button = make("button", undefined, one.is_valid ? "" : "invalid");
  button.type = "button";
  const picture = make("img");
  picture.alt = "";
  picture.loading = "lazy";
  picture.src = `batches/${batch.key}/${one.row}.jpg`;
  const label = one.label || (one.id < 0 ? "padding" : one.path.split("/").pop());
  button.append(picture, make("span", label, "name"), make("span", `${one.id}${one.is_valid ? "" : ", masked"}`, "id"));
  button.title = one.path || label;
  button.setAttribute("aria-label", `Row ${one.row}: ${label}, sample ${one.id}${one.is_valid ? "" : ", masked"}. What was drawn?`);
  button.addEventListener("click", async () => {
    const answer = await ask(`batches/${batch.key}/${one.row}.json`);
    const text = answer.problem || answer.words.join("; ");
    say(byId("drawn"), `Row ${one.row}, sample ${one.id}${one.path ? ` (${one.path})` : ""}, label ${one.label || "none"}: ${text}`);
    button.title = `${one.path || label}: ${text}`;
  });
  item.append(button);
  return item;
}

byId("batch-again").addEventListener("click", () => look(looking.stream, looking.count, false));
byId("batch-more").addEventListener("click", () => look(looking.stream, 64, false));
byId("batch-close").addEventListener("click", () => { byId("batch").hidden = true; byId("main").focus(); });
byId("show-photos").addEventListener("click", () => {
  withPhotos = true;
  byId("show-photos").hidden = true;
});

// A list of all tooltips below each section, for touch screens, keyboards and screen readers.
for (const section of document.querySelectorAll("main > section")) {
  const told = [...section.querySelectorAll("[title]:is(dt, th)")];
  if (!told.length) continue;
  const list = make("dl");
  for (const node of told) list.append(make("dt", node.textContent), make("dd", node.title));
  const words = make("details", undefined, "words");
  words.append(make("summary", "What these words mean"), list);
  section.append(words);
}

// A daemon that ended, a daemon that hangs and a broken network cannot be told apart here: no message
// arrives. Old values must then not look like current ones.
const SILENCE_MS = 5000; // ten reports
const AGAIN_MS = 2000;
let source = null;
let heardAt = 0; // by Date.now(), which goes on while a phone sleeps
let isLost = false;
let isEnded = false; // the daemon sent why, which says more than that there is no connection

function lose(text) {
  if (!isLost) {
    isLost = true;
    document.body.classList.add("lost");
    document.title = "✕ augd: no connection";
    say(byId("verdict"), "Unknown: the daemon does not answer.");
    say(byId("rate"), "–");
    for (const id of ["busy", "wait", "fetch", "transfer", "train"]) {
      bar(id, 0);
      say(byId(`${id}-text`), "–");
    }
    if (!heardAt) say(byId("served"), "");
  }
  const since = heardAt ? ` The values below are from ${new Date(heardAt).toLocaleTimeString()}.` : "";
  say(byId("connection"), `${text}${since}`);
  byId("connection").hidden = false;
}

function hear(event) {
  heardAt = Date.now();
  if (isLost) {
    isLost = isEnded = false;
    document.body.classList.remove("lost");
    byId("connection").hidden = true;
    say(byId("connection"), "");
  }
  draw(JSON.parse(event.data));
  document.title = "augd";
}

// A browser reconnects by itself after a broken connection, but not after a rejection.
async function refused() {
  drop();
  let text = "No connection to the daemon. Trying again…";
  try {
    const answer = await fetch("status.json", { signal: AbortSignal.timeout(SILENCE_MS) });
    if (answer.status === 401) text = "The daemon requires its token: reload this page.";
    else if (!answer.ok) text = `The daemon rejects the request: ${(await answer.text()).trim()}. Trying again…`;
  } catch { /* no answer, as the text says */ }
  lose(text);
  setTimeout(follow, AGAIN_MS);
}

function drop() {
  if (source) source.close();
  source = null;
}

// Not while the tab is hidden: reports would cost the daemon time for nothing.
function follow() {
  if (document.hidden) {
    drop();
  } else if (!source) {
    points = [];
    const mine = new EventSource("events");
    source = mine;
    mine.addEventListener("message", hear);
    mine.addEventListener("end", (event) => {
      const said = JSON.parse(event.data).why;
      isEnded = true;
      lose(`${said[0].toUpperCase()}${said.slice(1)}. Trying again…`);
    });
    mine.addEventListener("error", () => {
      if (mine !== source) return;
      if (mine.readyState === EventSource.CLOSED) refused();
      else if (!isEnded) lose("No connection to the daemon. Trying again…");
    });
    mine.addEventListener("open", () => { points = []; });
    watchSilence();
  }
}

// A silent connection is opened again: it may belong to a network that a phone has left.
let timer = 0;
function watchSilence() {
  clearInterval(timer);
  let since = Date.now();
  timer = setInterval(() => {
    if (!source || Date.now() - Math.max(since, heardAt) < SILENCE_MS) return;
    since = Date.now();
    drop();
    lose(`The daemon has sent nothing for ${Math.round((since - (heardAt || since - SILENCE_MS)) / 1000)} s: it hangs, it ended, or the network is down. Trying again…`);
    follow();
  }, 1000);
}
document.addEventListener("visibilitychange", follow);
follow();

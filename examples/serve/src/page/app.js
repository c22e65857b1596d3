'use strict';

const $ = (id) => document.getElementById(id);

/** An element with a class and text; text is never read as HTML. */
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function ask(path, parameters) {
  const response = await fetch(path + '?' + new URLSearchParams(parameters));
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || response.statusText);
  return body;
}

const media = (id) => 'media/' + encodeURIComponent(id);
const percent = (p) => (p >= 0.0995 ? Math.round(100 * p) : (100 * p).toPrecision(2)) + ' %';

/** What shows or plays a candidate. */
function show(item) {
  const box = element('div', 'show');
  if (item.kind === 'image') {
    const picture = element('img');
    picture.src = media(item.id);
    picture.alt = item.id;
    picture.loading = 'lazy';
    box.append(picture);
  } else if (item.kind === 'audio' || item.kind === 'video') {
    const player = element(item.kind);
    player.src = media(item.id);
    player.controls = true;
    player.preload = item.kind === 'video' ? 'metadata' : 'none';
    player.setAttribute('aria-label', item.id);
    box.append(player);
  } else {
    box.append(element('span', 'name', item.id));
  }
  return box;
}

function card(hit, rank, query) {
  const item = element('li');
  const made = element('article', 'card');
  made.dataset.id = hit.id;
  const facts = element('div', 'facts');
  facts.append(element('b', '', rank + '. ' + hit.id));
  facts.append(element('span', 'soft', 'score ' + hit.score.toFixed(3)));
  facts.append(element('span', 'code', hit.identifier.join('-')));
  const known = Object.entries(hit.metadata || {}).slice(0, 6);
  if (known.length) {
    const list = element('dl');
    for (const [name, value] of known) {
      list.append(element('dt', '', name));
      list.append(element('dd', '', typeof value === 'string' ? value : JSON.stringify(value)));
    }
    facts.append(list);
  }
  const why = element('button', 'why', 'How?');
  why.type = 'button';
  why.setAttribute('aria-label', 'How the query got to ' + hit.id);
  why.addEventListener('click', async () => {
    await walk(query, hit);
    // Below the answers on a narrow screen.
    $('walk').scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  });
  facts.append(why);
  made.append(show(hit), facts);
  item.append(made);
  return item;
}

let asked = 0;

async function search() {
  const query = $('query').value.trim();
  if (!query) return;
  const number = ++asked;
  const parameters = { q: query, top: 24 };
  const filter = $('filter').value.trim();
  if (filter) parameters.filter = filter;
  history.replaceState(null, '', '?' + new URLSearchParams(filter ? { q: query, filter } : { q: query }));
  $('status').className = 'soft';
  $('status').textContent = 'Searching…';
  try {
    const answer = await ask('api/search', parameters);
    if (number !== asked) return;
    const count = answer.hits.length;
    $('status').textContent = count + (count === 1 ? ' answer' : ' answers') + ' in ' +
      answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0) + ' ms' +
      (answer.warnings || []).map(warning => '; ' + warning).join('');
    $('hits').replaceChildren(...answer.hits.map((hit, at) => card(hit, at + 1, query)));
    if (count) await walk(query, answer.hits[0]); else forget();
  } catch (error) {
    if (number !== asked) return;
    $('status').className = 'bad';
    $('status').textContent = error.message;
    $('hits').replaceChildren();
    forget();
  }
}

let info = { levels: [] };

/** What a level of the identifier is called. */
function called(level, levels) {
  const first = info.groups ? 1 : 0;
  if (level < first) return 'group';
  if (level === first) return 'coarse cluster';
  if (level === levels - 1) return 'unique token';
  return 'fine token ' + (level - first);
}

function choice(token, logProbability, own) {
  const line = element('div', own ? 'choice own' : 'choice');
  const probability = Math.exp(logProbability);
  const bar = element('div', 'bar');
  const fill = element('i');
  fill.style.width = (100 * probability).toFixed(1) + '%';
  bar.append(fill);
  line.append(element('span', '', token), bar, element('span', '', percent(probability)));
  return line;
}

let walked = 0;

/** Hides the walk, also one that is still on its way. */
function forget() {
  walked++;
  $('walk').hidden = true;
}

/** Shows the levels of a candidate's identifier: each with what else could have stood there. */
async function walk(query, hit) {
  const number = ++walked;
  for (const made of document.querySelectorAll('.card')) {
    made.classList.toggle('chosen', made.dataset.id === hit.id);
  }
  let found, prefixes;
  try {
    const depths = hit.identifier.slice(0, -1).map((_, at) => hit.identifier.slice(0, at + 1).join('-'));
    [found, ...prefixes] = await Promise.all([
      ask('api/explain', { q: query, id: hit.id }),
      ...depths.map((tokens) => ask('api/prefix', { tokens, limit: 6 })),
    ]);
  } catch (error) {
    if (number !== walked) return;
    $('status').className = 'bad';
    $('status').textContent = error.message;
    return;
  }
  // Another walk was asked for meanwhile.
  if (number !== walked) return;
  const levels = found.levels.map((level, at) => {
    const item = element('li', 'level');
    const title = element('h3', '', called(at, found.levels.length));
    title.append(element('span', '', level.choices === 1 ? 'the only one left' : 'of ' + level.choices));
    item.append(title);
    // In the order of their probabilities, the own one among them.
    const lines = [[level.token, level.log_probability, true],
      ...level.runners_up.map(([token, p]) => [token, p, false])];
    lines.sort((a, b) => b[1] - a[1]);
    if (level.choices > 1) lines.forEach((line) => item.append(choice(...line)));
    const below = prefixes[at];
    if (below) {
      const row = element('div', 'below');
      for (const other of below.items) {
        if (other.kind === 'image') {
          const picture = element('img');
          picture.src = media(other.id);
          picture.alt = other.id;
          picture.title = other.id;
          row.append(picture);
        } else {
          const tag = element('span', 'tag', other.id);
          tag.title = other.id;
          row.append(tag);
        }
      }
      row.append(element('span', '', below.count === 1 ? '1 candidate' : below.count + ' candidates'));
      item.append(row);
    }
    return item;
  });
  let about = '“' + query + '” → ' + hit.id + ': ' + found.score.toFixed(3);
  if (found.rerank) about += ', of which ' + found.rerank.toFixed(3) + ' for the likeness of its vector';
  $('walk-about').textContent = about;
  $('levels').replaceChildren(...levels);
  $('walk').hidden = false;
}

async function start() {
  $('form').addEventListener('submit', (event) => { event.preventDefault(); search(); });
  try {
    info = await ask('api/info', {});
    $('about').textContent = info.candidates.toLocaleString('en') + ' candidates; identifiers of ' +
      info.levels.join(' × ') + ' tokens' + (info.drift.reasons.length ? '; ' + info.drift.reasons.join('; ') : '');
    $('more').hidden = !info.has_metadata;
  } catch (error) {
    $('about').textContent = error.message;
  }
  const link = new URLSearchParams(location.search);
  if (link.get('filter')) { $('filter').value = link.get('filter'); $('more').open = true; }
  if (link.get('q')) { $('query').value = link.get('q'); await search(); }
}

start();

// node compare.js INDEX.JSON BASE AGENT...: prints how the cases of the Autobahn suite ended for each agent, and which
// of them ended worse for an AGENT than for BASE. Exits 1 if one did, 2 if the two cannot be compared.
'use strict';

const fs = require('fs');
const path = require('path');

// From best to worst, for both of the words that the suite has for a case: what came back, and how the connection was
// closed. INFORMATIONAL stands for cases that the suite does not judge. UNIMPLEMENTED is an extension that was not
// agreed, thus a fault of a proxy that loses it. A case that never ran is what remains of a broken run.
const ORDER = [
  'OK',
  'INFORMATIONAL',
  'NON-STRICT',
  'UNIMPLEMENTED',
  'FAILED BY CLIENT',
  'WRONG CODE',
  'UNCLEAN',
  'FAILED',
  'NOT RUN',
];
const NOT_RUN = { behavior: 'NOT RUN', behaviorClose: 'NOT RUN', remoteCloseCode: null };
const JUDGED = { behavior: 'What came back', behaviorClose: 'How it was closed' };

function unable(why) {
  console.error(`compare.js: ${why}`);
  process.exit(2);
}

function rank(word) {
  const place = ORDER.indexOf(word);
  if (place < 0) unable(`the suite says ${JSON.stringify(word)}, whose place in the order is not known`);
  return place;
}

// "9.1.2" before "10.1.1".
function byNumber(one, other) {
  return one.localeCompare(other, 'en', { numeric: true });
}

function table(title, judged, outcomes) {
  const words = ORDER.filter((word) => outcomes.some(({ cases }) => cases.some((it) => it[judged] === word)));
  console.log(`| ${title} | ${words.join(' | ')} |`);
  console.log(`|---|${words.map(() => '--:|').join('')}`);
  for (const { agent, cases } of outcomes) {
    const counts = words.map((word) => cases.filter((it) => it[judged] === word).length);
    console.log(`| ${agent} | ${counts.join(' | ')} |`);
  }
  console.log();
}

function list(title, lines) {
  if (lines.length === 0) return;
  console.log(`${title}:\n`);
  for (const line of lines) console.log(`- ${line}`);
  console.log();
}

const [file, base, ...agents] = process.argv.slice(2);
if (agents.length === 0) unable('needs the index.json of a run, the agent to compare with, and the others');
let index;
try {
  index = JSON.parse(fs.readFileSync(file, 'utf8'));
} catch (error) {
  unable(`cannot read ${file}: ${error.message}`);
}
const ids = [...new Set(Object.values(index).flatMap(Object.keys))].sort(byNumber);
if (ids.length === 0) unable(`${file} has no case`);

// Every case of every agent, in the order of `ids`.
const outcomes = [base, ...agents].map((agent) => ({
  agent,
  cases: ids.map((id) => index[agent]?.[id] ?? NOT_RUN),
}));
for (const { cases } of outcomes) {
  for (const it of cases) Object.keys(JUDGED).forEach((judged) => rank(it[judged]));
}
const [{ cases: direct }, ...others] = outcomes;
const unknown = ids.filter((id, at) => direct[at] === NOT_RUN);
if (unknown.length > 0) unable(`${base} has no outcome for ${unknown.join(', ')}`);

console.log(`${ids.length} cases\n`);
for (const [judged, title] of Object.entries(JUDGED)) table(title, judged, outcomes);

const worse = [];
const different = [];
for (const { agent, cases } of others) {
  ids.forEach((id, at) => {
    const [before, after] = [direct[at], cases[at]];
    const report = after.reportfile ? ` (${path.basename(after.reportfile, '.json')}.html)` : '';
    for (const [judged, title] of Object.entries(JUDGED)) {
      if (before[judged] === after[judged]) continue;
      const line = `${id}, ${agent}: ${title.toLowerCase()}: ${before[judged]} became ${after[judged]}${report}`;
      (rank(after[judged]) > rank(before[judged]) ? worse : different).push(line);
    }
    if (after !== NOT_RUN && before.remoteCloseCode !== after.remoteCloseCode) {
      const code = (it) => it.remoteCloseCode ?? 'none';
      different.push(`${id}, ${agent}: the server's Close code: ${code(before)} became ${code(after)}${report}`);
    }
  });
}
list(`Worse than ${base}`, worse);
list(`Different from ${base}, not worse`, different);
if (worse.length === 0) console.log(`No case is worse than ${base}.`);
process.exit(worse.length === 0 ? 0 : 1);

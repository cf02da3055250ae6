// Judges the reports of testssl.sh (flat JSON) and sslscan (XML): prints every finding that is not good, and exits with 1
// if one of them is not expected, or if a report is not whole.
'use strict';
const fs = require('fs');

// What testssl.sh finds that is due to the certificate of the run, which a local CA has made for `localhost`.
const OF_THE_CERTIFICATE = {
  cert_chain_of_trust: 'the local CA is in nobody\'s trust store',
  cert_revocation: 'the local CA has nothing to ask whether a certificate is revoked; it is replaced instead',
};

// What it finds that is meant to be so.
const MEANT = {
  cipher_order: 'every suite is a strong one, so the client chooses the one that is fast for it: Mozilla\'s ' +
    'intermediate configuration says the same',
  HSTS: 'a promise of the site, which its application makes: nothing that passes is changed',
};

// A report that lacks one of these was broken off.
const NEEDED = ['SSLv2', 'SSLv3', 'TLS1', 'TLS1_1', 'TLS1_2', 'TLS1_3', 'FS', 'heartbleed', 'CCS', 'ticketbleed', 'ROBOT',
  'secure_renego', 'secure_client_renego', 'CRIME_TLS', 'POODLE_SSL', 'SWEET32', 'FREAK', 'DROWN', 'LOGJAM', 'BEAST',
  'LUCKY13', 'RC4'];

let unexpected = 0;
const complain = (text) => {
  unexpected += 1;
  console.log(`UNEXPECTED  ${text}`);
};

function judgeTestssl(path) {
  const findings = JSON.parse(fs.readFileSync(path, 'utf8'));
  const count = (severity) => findings.filter((one) => one.severity === severity).length;
  console.log(`testssl.sh: ${findings.length} findings, ${count('OK')} OK, ${count('INFO')} INFO`);
  for (const id of NEEDED) {
    // Later versions say PFS, or have several of a kind.
    const isThere = findings.some((one) => one.id === id || (id === 'FS' && one.id === 'PFS'));
    if (!isThere) complain(`the report says nothing of ${id}`);
  }
  for (const { id, severity, finding } of findings) {
    if (severity === 'OK' || severity === 'INFO') continue;
    const reason = OF_THE_CERTIFICATE[id] || MEANT[id];
    if (reason) console.log(`expected    ${severity} ${id}: ${finding}\n            ${reason}`);
    else complain(`${severity} ${id}: ${finding}`);
  }
}

function judgeSslscan(path) {
  const xml = fs.readFileSync(path, 'utf8');
  const tags = (name) => [...xml.matchAll(new RegExp(`<${name} ([^>]*?)/?>`, 'g'))].map(([, inside]) =>
    Object.fromEntries([...inside.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, key, value]) => [key, value])));
  const protocols = tags('protocol');
  const ciphers = tags('cipher').filter((one) => one.status !== 'rejected');
  console.log(`sslscan: ${protocols.length} protocols, ${ciphers.length} suites`);
  const name = (one) => `${one.type === 'ssl' ? 'SSL ' : 'TLS '}${one.version}`;
  const enabled = protocols.filter((one) => one.enabled === '1').map(name).join(', ');
  if (enabled !== 'TLS 1.2, TLS 1.3') complain(`sslscan: spoken are ${enabled || 'none'}`);
  for (const one of ciphers) {
    if (!/GCM|CHACHA20/.test(one.cipher) || Number(one.bits) < 128) {
      complain(`sslscan: ${one.sslversion} ${one.cipher}`);
    }
  }
  if (ciphers.length === 0) complain('sslscan: no suite at all');
  if (tags('heartbleed').some((one) => one.vulnerable !== '0')) complain('sslscan: heartbleed');
  if (tags('compression').some((one) => one.supported === '1')) complain('sslscan: compression');
  if (tags('renegotiation').some((one) => one.supported === '1' && one.secure !== '1')) {
    complain('sslscan: insecure renegotiation');
  }
}

const [testssl, sslscan] = process.argv.slice(2);
judgeSslscan(sslscan);
judgeTestssl(testssl);
console.log(unexpected === 0 ? 'nothing unexpected' : `${unexpected} unexpected`);
process.exitCode = unexpected === 0 ? 0 : 1;

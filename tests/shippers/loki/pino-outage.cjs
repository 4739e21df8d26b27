// Two batches by pino through pino-loki, the second once the first was given up: `node pino-outage.cjs URL KEY SERVICE COUNT`.
const pino = require("pino");
const pinoLoki = require("pino-loki").default;

const [url, key, service, count] = process.argv.slice(2);
const stream = pinoLoki({
  host: url,
  headers: { Authorization: `Bearer ${key}` },
  labels: { app: service },
  batching: { interval: 0.05 },
});
const logger = pino({ level: "trace" }, stream);
const half = Number(count) / 2;
const log = (first) => {
  for (let n = first; n < first + half; n += 1) logger.info({ n }, "from pino");
};
const say = console.error;
console.error = (...told) => {
  console.error = say;
  console.log("refused:", ...told);
  log(half);
  stream.end();
};
log(0);

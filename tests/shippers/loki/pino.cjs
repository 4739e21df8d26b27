// Logs by pino through pino-loki: `node pino.cjs URL KEY SERVICE COUNT`.
const pino = require("pino");
const pinoLoki = require("pino-loki").default;

const [url, key, service, count] = process.argv.slice(2);
const stream = pinoLoki({
  host: url,
  headers: { Authorization: `Bearer ${key}` },
  labels: { app: service },
  batching: { interval: 1 },
});
const logger = pino({ level: "trace" }, stream);
for (let n = 0; n < Number(count); n += 1) {
  logger.warn({ n, meta: { traceID: `trace-${n}`, attempt: n } }, "from pino");
}
stream.end();

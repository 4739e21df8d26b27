// Two batches by winston through winston-loki, each until it was taken: `node winston-outage.cjs URL KEY SERVICE COUNT json|protobuf`.
// What was refused is told on stdout.
const winston = require("winston");
const LokiTransport = require("winston-loki");

const [url, key, service, count, form] = process.argv.slice(2);
const transport = new LokiTransport({
  host: url,
  basicAuth: `anybody:${key}`,
  labels: { job: service },
  json: form === "json",
  interval: 0.05,
  replaceTimestamp: false,
  timeout: 5000,
  onConnectionError: (error) => console.log(`refused: ${error}`),
});
const { batcher } = transport;
batcher.circuitBreakerInterval = 100; // a minute is fixed there; nothing else is other than users have it
const logger = winston.createLogger({ level: "silly", transports: [transport] });
const taken = async () => {
  do {
    await new Promise((resolve) => setTimeout(resolve, 20));
  } while (batcher.batch.streams.length || batcher.batchesSending);
};
const half = Number(count) / 2;
const log = (first) => {
  for (let n = first; n < first + half; n += 1) {
    logger.log({ level: "info", message: `from winston ${n}`, timestamp: Date.now() });
  }
};
(async () => {
  log(0);
  await taken();
  log(half);
  await taken();
  process.exit(0);
})();

// Logs by winston through winston-loki: `node winston.cjs URL KEY SERVICE COUNT json|protobuf`. Ends when all were taken.
const winston = require("winston");
const LokiTransport = require("winston-loki");

const [url, key, service, count, form] = process.argv.slice(2);
const transport = new LokiTransport({
  host: url,
  basicAuth: `anybody:${key}`,
  labels: { job: service },
  json: form === "json",
  interval: 0.2,
  replaceTimestamp: false,
  timeout: 5000,
  onConnectionError: (error) => console.log(`refused: ${error}`),
});
const logger = winston.createLogger({ level: "silly", transports: [transport] });
for (let n = 0; n < Number(count); n += 1) {
  logger.log({ level: n % 2 ? "error" : "info", message: `from winston ${n}`, timestamp: Date.now() });
}
setImmediate(async () => {
  await transport.flush();
  process.exit(0);
});

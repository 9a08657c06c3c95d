/**
 * One logger for the SDK. `info`: one line per change in the life of a room or track; `warn`: something failed and
 * was repaired; `error`: given up. Tokens, SDP and message payloads are never logged above `debug`, tokens never.
 */

/** Least severe level that is written. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Receives every line that passes the level. */
export type LogSink = (level: Exclude<LogLevel, 'silent'>, message: string, ...details: unknown[]) => void;

const SEVERITY: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3, silent: 4 };

/* eslint-disable-next-line no-console -- the default sink is the console */
const consoleSink: LogSink = (level, message, ...details) => console[level](`[mrtc] ${message}`, ...details);

let threshold: LogLevel = 'warn';
let sink: LogSink = consoleSink;

function write(level: Exclude<LogLevel, 'silent'>, message: string, details: unknown[]): void {
  if (SEVERITY[level] >= SEVERITY[threshold]) sink(level, message, ...details);
}

/** The SDK's own log calls. */
export const logger = {
  debug: (message: string, ...details: unknown[]): void => write('debug', message, details),
  info: (message: string, ...details: unknown[]): void => write('info', message, details),
  warn: (message: string, ...details: unknown[]): void => write('warn', message, details),
  error: (message: string, ...details: unknown[]): void => write('error', message, details),
};

/** Sets the least severe level that is written; `warn` at first. */
export function setLogLevel(level: LogLevel): void {
  threshold = level;
}

/** Sends the log somewhere else than the console; without an argument back to it. */
export function setLogSink(newSink: LogSink = consoleSink): void {
  sink = newSink;
}

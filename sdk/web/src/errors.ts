/**
 * Every error that the SDK throws or reports. One root, one class per situation that an application handles, and a
 * stable `code`: the server's codes are those of docs/errors.md, the client's own are listed in `ClientErrorCode`.
 */

import { ErrorCode } from './gen/mrtc/common/v1/common_pb';
import type { Error as ServerErrorMessage } from './gen/mrtc/signaling/v1/client_pb';

/** Codes of the server, as in docs/errors.md. */
export type ServerErrorCode = keyof typeof ErrorCode;

/** Codes of the SDK itself. */
export type ClientErrorCode =
  /** No connection to the server could be made or it was lost for longer than the grace time. */
  | 'CONNECTION_FAILED'
  /** The server did not answer in time. */
  | 'TIMEOUT'
  /** The room was left or closed while the call was under way. */
  | 'CLOSED'
  /** The call does not fit the present state, for example publishing before `connect`. */
  | 'BAD_STATE'
  /** An argument is out of range; nothing was sent. */
  | 'BAD_ARGUMENT'
  /** The browser and the server found no common media settings. */
  | 'NEGOTIATION_FAILED'
  /** The person or the browser's policy refused the camera, microphone or screen. */
  | 'DEVICE_NOT_ALLOWED'
  /** No such device. */
  | 'DEVICE_NOT_FOUND'
  /** The device is used by another program, or failed. */
  | 'DEVICE_FAILED'
  /** This browser lacks what the call needs. */
  | 'NOT_SUPPORTED'
  | EncryptionErrorCode;

/** Codes of `EncryptionError`. */
export type EncryptionErrorCode =
  /** The key with which a track is encrypted is not known here, or this client has no end-to-end encryption. */
  | 'ENCRYPTION_KEY_MISSING'
  /** A track is encrypted with another key, or was changed on the way. */
  | 'ENCRYPTION_KEY_WRONG'
  /** A track is not encrypted although this client demands it. */
  | 'ENCRYPTION_ABSENT';

/** Any code of `MrtcError.code`. */
export type MrtcErrorCode = ServerErrorCode | ClientErrorCode;

/** Root of all errors of the SDK. */
export class MrtcError extends Error {
  override readonly name: string = 'MrtcError';

  /**
   * @param code stable code
   * @param message for people
   * @param options `retryAfterMs`: set if a retry after that time makes sense; `cause`: what was thrown below
   */
  constructor(
    readonly code: MrtcErrorCode,
    message: string,
    readonly options: { retryAfterMs?: number | undefined; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
  }

  /** Milliseconds after which the same call may succeed; unset: do not repeat it. */
  get retryAfterMs(): number | undefined {
    return this.options.retryAfterMs;
  }
}

/** The server refused a request; `code` says why. */
export class ServerError extends MrtcError {
  override readonly name: string = 'ServerError';

  /** From the wire message. */
  static fromMessage(error: ServerErrorMessage): ServerError {
    const code = ((ErrorCode[error.code] as string | undefined) ?? 'INTERNAL') as ServerErrorCode;
    return new ServerError(code, error.message || code, { retryAfterMs: error.retryAfterMs });
  }
}

/** The token is wrong, has expired or does not permit what was asked. */
export class AuthError extends ServerError {
  override readonly name = 'AuthError';
}

/** No connection to the server. */
export class ConnectionError extends MrtcError {
  override readonly name = 'ConnectionError';

  constructor(message: string, code: 'CONNECTION_FAILED' | 'TIMEOUT' | 'CLOSED' = 'CONNECTION_FAILED', cause?: unknown) {
    super(code, message, { cause });
  }
}

/** Offer and answer did not come together, or the browser refused them. */
export class NegotiationError extends MrtcError {
  override readonly name = 'NegotiationError';

  constructor(message: string, cause?: unknown) {
    super('NEGOTIATION_FAILED', message, { cause });
  }
}

/** The call does not fit the present state. */
export class StateError extends MrtcError {
  override readonly name = 'StateError';

  constructor(message: string) {
    super('BAD_STATE', message);
  }
}

/** Camera, microphone or screen could not be had. */
export class DeviceError extends MrtcError {
  override readonly name = 'DeviceError';

  /** From what getUserMedia or getDisplayMedia threw (W3C mediacapture-main section 10.2). */
  static fromCapture(what: string, cause: unknown): DeviceError {
    const name = cause instanceof Error ? cause.name : '';
    switch (name) {
      case 'NotAllowedError':
      case 'SecurityError':
        return new DeviceError('DEVICE_NOT_ALLOWED', `access to the ${what} was not permitted`, { cause });
      case 'NotFoundError':
      case 'OverconstrainedError':
        return new DeviceError('DEVICE_NOT_FOUND', `no ${what} fits`, { cause });
      case 'TypeError':
        return new DeviceError('NOT_SUPPORTED', `this page cannot use the ${what} (HTTPS or localhost is needed)`, {
          cause,
        });
      default:
        return new DeviceError('DEVICE_FAILED', `the ${what} failed: ${name || String(cause)}`, { cause });
    }
  }
}

/** A track cannot be decrypted. */
export class EncryptionError extends MrtcError {
  override readonly name = 'EncryptionError';

  /** @param keyIndex index of the key with which the track is encrypted; 0 if it is not encrypted */
  constructor(
    code: EncryptionErrorCode,
    message: string,
    readonly keyIndex = 0,
  ) {
    super(code, message);
  }
}

const AUTH_CODES = new Set<number>([
  ErrorCode.UNAUTHENTICATED,
  ErrorCode.TOKEN_EXPIRED,
  ErrorCode.PERMISSION_DENIED,
]);

/** The fitting class for an error of the server. */
export function errorFromServer(error: ServerErrorMessage): ServerError {
  const plain = ServerError.fromMessage(error);
  return AUTH_CODES.has(error.code) ? new AuthError(plain.code, plain.message, plain.options) : plain;
}

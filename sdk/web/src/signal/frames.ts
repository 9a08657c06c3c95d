/** Encodes and decodes the frames of the client protocol (proto/mrtc/signaling/v1/client.proto). */

import { create, fromBinary, fromJsonString, toBinary, toJsonString } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { ClientFrameSchema, ServerFrameSchema } from '../gen/mrtc/signaling/v1/client_pb';
import type { ClientFrame, ServerFrame } from '../gen/mrtc/signaling/v1/client_pb';

/** How frames are written on the socket. */
export type FrameFormat = 'proto' | 'json';

/** The oneof of a frame to the server, as an initializer. */
export type ClientBody = NonNullable<MessageInitShape<typeof ClientFrameSchema>['body']>;

/** The oneof of a frame from the server. */
export type ServerBody = ServerFrame['body'];

/** The case names of a reply or push. */
export type ServerCase = NonNullable<ServerBody['case']>;

/** The message that belongs to a case. */
export type ServerValue<C extends ServerCase> = Extract<ServerBody, { case: C }>['value'];

/** The WebSocket subprotocol of a format. */
export const subprotocolOf = (format: FrameFormat): string => `mrtc.v1.${format}`;

/** A frame to be sent. */
export function clientFrame(requestId: number, ack: number, body: ClientBody): ClientFrame {
  return create(ClientFrameSchema, { requestId: BigInt(requestId), ack: BigInt(ack), body });
}

/** As it goes onto the socket. */
export function encodeFrame(frame: ClientFrame, format: FrameFormat): string | Uint8Array<ArrayBuffer> {
  return format === 'json'
    ? toJsonString(ClientFrameSchema, frame)
    : (toBinary(ClientFrameSchema, frame));
}

/**
 * From what the socket gave. The type of the data decides, so a server that answers in the other format is understood.
 *
 * @throws Error if it is not a frame
 */
export function decodeFrame(data: unknown): ServerFrame {
  if (typeof data === 'string') return fromJsonString(ServerFrameSchema, data, { ignoreUnknownFields: true });
  if (data instanceof ArrayBuffer) return fromBinary(ServerFrameSchema, new Uint8Array(data));
  throw new Error('a frame must be text or an ArrayBuffer');
}

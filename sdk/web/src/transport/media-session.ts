/**
 * Keeps media flowing: negotiates one at a time, grows the slots, restarts ICE after a network change and builds a new
 * transport when the old one or its media node is lost.
 */

import {
  FORMER_LINGER_MS,
  ICE_RESTART_AFTER_MS,
  REPAIR_PATIENCE_MS,
  TRANSPORT_TIMEOUT_MS,
  TURN_FALLBACK_AFTER_MS,
} from '../defaults';
import { Emitter } from '../emitter';
import { ConnectionError, MrtcError } from '../errors';
import type { NegotiateResponse, SlotMapping } from '../gen/mrtc/signaling/v1/client_pb';
import { logger } from '../logger';
import { reconnectDelayMs, sleep } from '../signal/backoff';
import { Transport } from './transport';
import type { TransportOptions } from './transport';

/** What a media session tells. */
export type MediaEvents = {
  /** The slots after a negotiation; they belong to the present transport. */
  slots: [slots: readonly SlotMapping[]];
  /** Media may have stopped; it can heal by itself. */
  interrupted: [];
  /** Media stopped; repair is under way. */
  lost: [message: string];
  /** Media flows again. */
  restored: [];
};

/** What a media session needs of its room. */
export interface MediaHost {
  /** Asks the server; waits while the connection is lost. */
  negotiate: (request: {
    offer: string;
    newTransport?: boolean;
    trackMids?: Record<string, string>;
    isMove?: boolean;
  }) => Promise<NegotiateResponse>;
  /** Puts all published tracks on m-lines of a new transport. */
  moveTracks: (transport: Transport) => Promise<TrackMove>;
}

/** Published tracks on another transport. */
export interface TrackMove {
  /** Their m-lines by track id, once the offer is made. */
  mids: () => Record<string, string>;
  /** Puts them back on the m-lines that they had; those have sent all the time. */
  undo: () => void;
}

/** The media of one session. */
export class MediaSession extends Emitter<MediaEvents> {
  readonly #host: MediaHost;
  readonly #options: TransportOptions;
  readonly #maxSlots: number;
  /** The application's; the first transport gathers with them. */
  readonly #ownServers: readonly RTCIceServer[];
  readonly #closed = new AbortController();
  #transport: Transport;
  #queue: Promise<unknown> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isLost = false;
  #repairedAt = -Infinity;
  /** Servers that the present transport has not gathered with. */
  #hasNewServers = false;
  #isReplacing = false;
  /** Left by a move, while it may still play what the present one does not yet. */
  #former: Transport | undefined;
  #formerTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: MediaHost, options: TransportOptions, maxSlots: number) {
    super();
    this.#host = host;
    this.#options = options;
    this.#maxSlots = maxSlots;
    this.#ownServers = options.iceServers;
    this.#transport = this.#newTransport();
  }

  #hasClosed(): boolean {
    return this.#closed.signal.aborted;
  }

  /** The present transport. */
  get transport(): Transport {
    return this.#transport;
  }

  /** True while media is lost, and until the others' media must be back too. */
  get isInRepair(): boolean {
    return performance.now() < this.#repairedAt + REPAIR_PATIENCE_MS;
  }

  /** The one before it, for some seconds after a move. */
  get former(): Transport | undefined {
    return this.#former;
  }

  /**
   * Takes the answer of the join. The first transport has gathered without the server's `iceServers`, since its offer came
   * with the question for them: if it does not connect soon, or may go by TURN only, ICE is restarted with them.
   */
  start(answer: string, iceServers: RTCIceServer[]): Promise<void> {
    return this.#enqueue(async () => {
      this.setIceServers(iceServers);
      await this.#transport.acceptAnswer(answer);
      this.#watch(this.#transport);
    });
  }

  /** Takes fresh servers and credentials, for whatever gathers from now on. */
  setIceServers(iceServers: RTCIceServer[]): void {
    if (iceServers.length === 0) return;
    this.#options.iceServers = [...this.#ownServers, ...iceServers];
    this.#transport.setIceServers(this.#options.iceServers);
    this.#hasNewServers = true;
  }

  /** The network may be another one: an interrupted transport is repaired now and not after a while. */
  networkChanged(): void {
    if (this.#transport.state === 'disconnected') this.#restartIce(this.#transport);
  }

  /**
   * Does something with the present transport that must not be torn apart by a negotiation or a new transport, such as
   * placing a track on an m-line and announcing it. `negotiate` is for use inside it.
   */
  exclusively<T>(task: (transport: Transport, negotiate: () => Promise<void>) => Promise<T>): Promise<T> {
    return this.#enqueue(() => task(this.#transport, () => this.#negotiateNow()));
  }

  /** Adds slots, as far as allowed, and negotiates. */
  async grow(audio: number, video: number): Promise<void> {
    const room = Math.max(0, this.#maxSlots - this.#transport.slotCount);
    const addVideo = Math.min(video, room);
    const addAudio = Math.min(audio, room - addVideo);
    if (addAudio + addVideo === 0) {
      logger.warn(`${audio} audio and ${video} video tracks found no slot: maxSlots (${this.#maxSlots}) is reached`);
      return;
    }
    this.#options.audioSlots += addAudio;
    this.#options.videoSlots += addVideo;
    await this.exclusively(async (transport, negotiate) => {
      transport.addSlots(addAudio, addVideo);
      await negotiate();
    });
  }

  /** Builds a new transport, again and again until one connects or the session ends. */
  async replace(message: string): Promise<void> {
    if (this.#isReplacing || this.#hasClosed()) return;
    this.#isReplacing = true;
    this.#markLost(message);
    try {
      for (let attempt = 0; !this.#hasClosed(); attempt++) {
        await sleep(reconnectDelayMs(attempt), this.#closed.signal);
        if (this.#hasClosed()) return;
        try {
          await this.#enqueue(() => this.#replaceOnce());
          return;
        } catch (error) {
          if (error instanceof MrtcError && error.code === 'CLOSED') return;
          logger.warn(`attempt ${attempt + 1} at a new transport failed`, error);
        }
      }
    } finally {
      this.#isReplacing = false;
    }
  }

  /** Moves to another media node while the call goes on: what there is ends when the new transport flows. */
  async move(): Promise<void> {
    if (this.#isReplacing || this.#hasClosed()) return;
    this.#isReplacing = true;
    const present = this.#transport;
    try {
      await this.#enqueue(() => this.#replaceOnce(true));
    } catch (error) {
      logger.warn('the move to another media node failed', error);
    } finally {
      this.#isReplacing = false;
    }
    const hasFailed = this.#transport !== present && this.#transport.state !== 'connected';
    if (hasFailed && !this.#hasClosed()) await this.replace('the new media node cannot be reached');
  }

  /** Ends all. */
  close(): void {
    this.#closed.abort();
    clearTimeout(this.#timer);
    this.#closeFormer();
    this.removeAllListeners();
    this.#transport.close();
  }

  /** Makes an offer of the present transport and takes its answer. */
  async #negotiateNow(options: RTCOfferOptions = {}): Promise<void> {
    const transport = this.#transport;
    try {
      const { answer, slots } = await this.#host.negotiate({ offer: await transport.createOffer(options) });
      // No await in between: slots that are pushed behind the reply are newer.
      this.emit('slots', slots);
      await transport.acceptAnswer(answer);
    } catch (error) {
      await transport.rollback();
      throw error;
    }
  }

  async #replaceOnce(isMove = false): Promise<void> {
    const old = this.#transport;
    const fresh = this.#newTransport();
    this.#hasNewServers = false;
    let moved: TrackMove | undefined;
    try {
      moved = await this.#host.moveTracks(fresh);
      const offer = await fresh.createOffer();
      const { answer, slots } = await this.#host.negotiate({ offer, newTransport: true, trackMids: moved.mids(), isMove });
      // No await in between: the pushes that follow the reply speak of the new transport's slots.
      this.#transport = fresh;
      this.#closeFormer();
      if (isMove) this.#keepFormer(old);
      else old.close();
      this.emit('slots', slots);
      await fresh.acceptAnswer(answer);
      await this.#connected(fresh);
      this.#watch(fresh);
    } catch (error) {
      if (this.#transport !== fresh) {
        moved?.undo();
        fresh.close();
      }
      throw error;
    }
  }

  #newTransport(): Transport {
    const { onData, ...options } = this.#options;
    const transport: Transport = new Transport({
      ...options,
      onData: onData && ((message) => {
        // After a move both are members of the room for a moment; the new one counts as soon as it can be heard.
        const isDouble = transport === this.#former && this.#transport.data?.isOpen === true;
        if (!isDouble) onData(message);
      }),
    });
    return transport;
  }

  #keepFormer(transport: Transport): void {
    this.#former = transport;
    this.#formerTimer = setTimeout(() => this.#closeFormer(), FORMER_LINGER_MS);
  }

  #closeFormer(): void {
    clearTimeout(this.#formerTimer);
    this.#former?.close();
    this.#former = undefined;
  }

  /** Resolves when the transport is up; fails when that takes too long. */
  #connected(transport: Transport): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (error?: Error): void => {
        clearTimeout(timer);
        off();
        this.#closed.signal.removeEventListener('abort', onClose);
        if (error) reject(error);
        else resolve();
      };
      const onClose = (): void => finish(new ConnectionError('the room was left', 'CLOSED'));
      const onState = (state: RTCPeerConnectionState): void => {
        if (state === 'connected') finish();
        else if (state === 'failed') finish(new ConnectionError('the new transport did not connect'));
      };
      const timer = setTimeout(
        () => finish(new ConnectionError('the new transport did not connect', 'TIMEOUT')),
        TRANSPORT_TIMEOUT_MS,
      );
      const off = transport.on('stateChanged', onState);
      this.#closed.signal.addEventListener('abort', onClose);
      onState(transport.state);
    });
  }

  #watch(transport: Transport): void {
    transport.on('stateChanged', (state) => this.#stateChanged(transport, state));
    this.#stateChanged(transport, transport.state);
    if (transport.state === 'connected') return;
    if (!this.#hasNewServers) this.#startTimer(TRANSPORT_TIMEOUT_MS, () => this.#giveUp(transport));
    else {
      const isHopeless = this.#options.iceTransportPolicy === 'relay' && this.#ownServers.length === 0;
      this.#startTimer(isHopeless ? 0 : TURN_FALLBACK_AFTER_MS, () => this.#gatherAgain(transport));
    }
  }

  #stateChanged(transport: Transport, state: RTCPeerConnectionState): void {
    if (transport !== this.#transport || this.#hasClosed()) return;
    switch (state) {
      case 'connected':
        clearTimeout(this.#timer);
        this.#markRestored();
        break;
      case 'disconnected':
        this.#startTimer(ICE_RESTART_AFTER_MS, () => this.#restartIce(transport));
        this.emit('interrupted');
        break;
      case 'failed':
        clearTimeout(this.#timer);
        void this.replace('the path to the media server is gone');
        break;
      default:
        break;
    }
  }

  #restartIce(transport: Transport): void {
    if (transport !== this.#transport || transport.state === 'connected') return;
    this.#markLost('the path to the media server is interrupted');
    this.#gatherAgain(transport);
  }

  /** Restarts ICE, which gathers candidates of all networks and servers that there are now. */
  #gatherAgain(transport: Transport): void {
    if (transport !== this.#transport || transport.state === 'connected') return;
    this.#hasNewServers = false;
    this.#startTimer(TRANSPORT_TIMEOUT_MS, () => this.#giveUp(transport));
    this.#enqueue(() => this.#negotiateNow({ iceRestart: true })).catch((error: unknown) => {
      logger.warn('the ICE restart failed', error);
      this.#giveUp(transport);
    });
  }

  #giveUp(transport: Transport): void {
    if (transport !== this.#transport || transport.state === 'connected') return;
    void this.replace('the media server cannot be reached');
  }

  #startTimer(ms: number, action: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, ms);
  }

  #markLost(message: string): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#repairedAt = Infinity;
    this.emit('lost', message);
  }

  #markRestored(): void {
    if (!this.#isLost) return;
    this.#isLost = false;
    this.#repairedAt = performance.now();
    this.emit('restored');
  }

  #enqueue<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(() => {
      if (this.#hasClosed()) throw new ConnectionError('the room was left', 'CLOSED');
      return task();
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }
}

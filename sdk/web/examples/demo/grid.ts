/** The pictures of all participants, their frames while they speak, and their figures. */

import type { LocalTrack, Participant, RemoteParticipant, RemoteTrack, Room, RoomStats } from '../../src/index';
import { element, make } from './dom';
import { Tile } from './tile';

/** Keeps the tiles equal to the room. */
export class Grid {
  readonly #box = element('grid', HTMLElement);
  readonly #sounds = element('audio-sink', HTMLDivElement);
  readonly #room: Room;
  /** By participant id; screens by `screen:` and participant id. */
  readonly #tiles = new Map<string, Tile>();

  constructor(room: Room) {
    this.#room = room;
    this.#box.replaceChildren();
    this.#sounds.replaceChildren();
    room.on('participantJoined', (participant) => this.#refresh(participant));
    room.on('participantUpdated', (participant) => this.#refresh(participant));
    room.on('participantLeft', (participant) => this.#remove(participant.id));
    room.on('trackSubscribed', (track, _, participant) => this.#subscribed(track, participant));
    room.on('trackUnsubscribed', (track, _, participant) => this.#unsubscribed(track, participant));
    room.on('trackMuted', (_, participant) => this.#refresh(participant));
    room.on('trackUnmuted', (_, participant) => this.#refresh(participant));
    room.on('activeSpeakersChanged', () => this.#showSpeakers());
    room.on('localPublished', ({ tracks }) => tracks.forEach((track) => this.#ownPublished(track)));
    room.on('localUnpublished', () => this.#refresh(room.localParticipant));
    room.on('statsUpdated', (stats) => this.#showFigures(stats));
  }

  /** Shows everybody who is there after the join. */
  start(): void {
    this.#refresh(this.#room.localParticipant);
    for (const participant of this.#room.remoteParticipants.values()) this.#refresh(participant);
  }

  /** Shows or hides the figures. */
  set hasFigures(value: boolean) {
    this.#box.classList.toggle('with-stats', value);
  }

  /** Lets a sign float over somebody's picture. */
  react(participant: Participant, sign: string): void {
    this.#tileOf(participant, false).react(sign);
  }

  #subscribed(track: RemoteTrack, participant: RemoteParticipant): void {
    if (track.kind === 'audio') {
      const sound = track.attach();
      sound.dataset['track'] = track.id;
      this.#sounds.append(sound);
    } else {
      track.attach(this.#tileOf(participant, isScreen(track.source)).video);
    }
    this.#refresh(participant);
  }

  #unsubscribed(track: RemoteTrack, participant: RemoteParticipant): void {
    for (const shown of track.detach()) if (shown instanceof HTMLAudioElement) shown.remove();
    this.#refresh(participant);
  }

  #ownPublished(track: LocalTrack): void {
    const self = this.#room.localParticipant;
    if (track.kind === 'video') {
      const { video } = this.#tileOf(self, isScreen(track.source));
      const show = (): void => {
        video.srcObject = new MediaStream([track.mediaStreamTrack]);
      };
      show();
      track.on('mediaChanged', show);
    }
    this.#refresh(self);
  }

  #tileOf(participant: Participant, isScreenTile: boolean): Tile {
    const key = isScreenTile ? `screen:${participant.id}` : participant.id;
    const known = this.#tiles.get(key);
    if (known) return known;
    const tile = new Tile({ isSelf: participant === this.#room.localParticipant, isScreen: isScreenTile });
    this.#tiles.set(key, tile);
    if (isScreenTile) this.#box.prepend(tile.element);
    else this.#box.append(tile.element);
    this.#layOut();
    return tile;
  }

  #remove(participantId: string): void {
    for (const key of [participantId, `screen:${participantId}`]) {
      this.#tiles.get(key)?.element.remove();
      this.#tiles.delete(key);
    }
    this.#layOut();
  }

  #refresh(participant: Participant): void {
    const tracks = tracksOf(participant);
    const picture = tracks.find(({ kind, source }) => kind === 'video' && !isScreen(source));
    const sound = tracks.find(({ kind, source }) => kind === 'audio' && source !== 'screen_share_audio');
    const isSelf = participant === this.#room.localParticipant;
    const tile = this.#tileOf(participant, false);
    tile.hasPicture = picture !== undefined && !picture.isMuted && isReceived(picture);
    tile.isAway = !participant.isConnected;
    const state = !participant.isConnected ? 'reconnecting' : !sound ? '' : sound.isMuted ? 'muted' : '';
    tile.setLabel(isSelf ? `${participant.name} – you` : participant.name, state);

    const screen = tracks.find(({ source, kind }) => kind === 'video' && isScreen(source));
    if (screen && isReceived(screen)) {
      const screenTile = this.#tileOf(participant, true);
      screenTile.hasPicture = !screen.isMuted;
      screenTile.setLabel(isSelf ? 'Your screen' : `${participant.name}'s screen`, '');
    } else if (this.#tiles.has(`screen:${participant.id}`)) {
      this.#tiles.get(`screen:${participant.id}`)?.element.remove();
      this.#tiles.delete(`screen:${participant.id}`);
      this.#layOut();
    }
  }

  #showSpeakers(): void {
    for (const participant of this.#everybody()) {
      const tile = this.#tiles.get(participant.id);
      if (tile) tile.isSpeaking = participant.isSpeaking;
    }
  }

  #showFigures({ tracks, rttMs }: RoomStats): void {
    for (const participant of this.#everybody()) {
      for (const isScreenTile of [false, true]) {
        const tile = this.#tiles.get(isScreenTile ? `screen:${participant.id}` : participant.id);
        const ids = new Set(
          tracksOf(participant)
            .filter(({ source }) => source.startsWith('screen') === isScreenTile)
            .map(({ id }) => id),
        );
        tile?.showFigures(tracks.filter(({ trackId }) => ids.has(trackId)), rttMs);
      }
    }
  }

  *#everybody(): Iterable<Participant> {
    yield this.#room.localParticipant;
    yield* this.#room.remoteParticipants.values();
  }

  /** As square as possible; wide windows get more columns. */
  #layOut(): void {
    const count = this.#tiles.size;
    const isWide = this.#box.clientWidth > this.#box.clientHeight;
    const columns = Math.ceil(Math.sqrt(count));
    this.#box.style.setProperty('--columns', String(isWide ? columns : Math.max(1, Math.ceil(count / Math.max(columns, count === 2 ? 2 : 1)))));
  }
}

/** One list of people beside the grid. */
export function showMembers(room: Room): void {
  const everybody: Participant[] = [room.localParticipant, ...room.remoteParticipants.values()];
  const items = everybody.map((participant) => {
    const item = make('li');
    item.append(make('span', '', participant === room.localParticipant ? `${participant.name} (you)` : participant.name));
    item.append(make('span', 'state', memberState(participant)));
    return item;
  });
  element('members', HTMLUListElement).replaceChildren(...items);
}

function memberState(participant: Participant): string {
  if (!participant.isConnected) return 'reconnecting';
  if (participant.type === 'vod') return 'file';
  if (participant.type === 'ingress') return 'stream';
  const open = new Set(tracksOf(participant).filter(({ isMuted }) => !isMuted).map(({ source }) => source));
  const words = [
    open.has('microphone') ? 'mic' : '',
    open.has('camera') ? 'camera' : '',
    open.has('screen_share') ? 'screen' : '',
  ];
  return words.filter(Boolean).join(', ') || 'listening';
}

const isScreen = (source: string): boolean => source === 'screen_share';

const isReceived = (track: LocalTrack | RemoteTrack): boolean => !('isSubscribed' in track) || track.isSubscribed;

function tracksOf(participant: Participant): (LocalTrack | RemoteTrack)[] {
  return (participant as Participant & { tracks: (LocalTrack | RemoteTrack)[] }).tracks;
}

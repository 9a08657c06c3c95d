import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalTrack, NegotiationError, Room } from '../src/index';
import type { RemoteTrack } from '../src/index';
import { ErrorCode, LeaveReason, TrackKind, TrackSource } from '../src/gen/mrtc/common/v1/common_pb';
import type { ClientFrame } from '../src/gen/mrtc/signaling/v1/client_pb';
import { FakeServer, joinReply, until } from './support/fake-server';
import type { FakeConnection, ReplyBody } from './support/fake-server';
import { FakePeerConnection, fakeMedia, installFakeWebRtc } from './support/fake-webrtc';

let server: FakeServer;
let room: Room;
let told: string[];

const bob = { id: 'pa_bob', identity: 'bob', isConnected: true };
const camera = { id: 'tr_cam', kind: TrackKind.VIDEO, source: TrackSource.CAMERA };
const publication = { id: 'pub_bob', participantId: bob.id, tag: 'main', tracks: [camera] };

/** A server that has one other participant with a camera in slot 6. */
function serve(connection: FakeConnection, frame: ClientFrame): void {
  const reply = (body: ReplyBody): void => connection.reply(frame, body);
  const { body } = frame;
  switch (body.case) {
    case 'join': {
      const snapshot = { room: 'room', participants: [bob], publications: [publication], slots: [slot('6', camera.id)] };
      const publications = body.value.publications.map((one) => stored(one, 'pub_me'));
      return reply(joinReply({ answer: 'answer', snapshot, publications }));
    }
    case 'resume':
      return reply({
        case: 'resume',
        value: { hasTransport: true, snapshot: { room: 'room', participants: [bob], publications: [publication] } },
      });
    case 'publish':
      return reply({
        case: 'publish',
        value: { publications: body.value.publications.map((one) => stored(one, `pub_${one.cid}`)) },
      });
    case 'negotiate':
      return reply({ case: 'negotiate', value: { answer: 'answer', slots: [slot('6', camera.id)] } });
    case 'subscribe':
      return reply({ case: 'subscribe', value: { slots: [slot('6', camera.id)] } });
    case 'sendMessage':
      return reply({ case: 'sendMessage', value: { messageSeq: 11n } });
    case 'ackOnly':
    case 'ping':
      return;
    default:
      return reply({ case: 'done', value: {} });
  }
}

const slot = (mid: string, trackId: string): { mid: string; trackId: string } => ({ mid, trackId });

function stored(one: { tag: string; tracks: { mid: string; kind: TrackKind }[] }, id: string): object {
  return { id, participantId: 'me', tag: one.tag, tracks: one.tracks.map((t) => ({ ...t, id: `tr_${id}_${t.mid}` })) };
}

const pc = (): FakePeerConnection => {
  const newest = FakePeerConnection.all.at(-1);
  if (!newest) throw new Error('no peer connection');
  return newest;
};

async function connect(): Promise<void> {
  await room.connect(server.url, 'token');
}

beforeEach(async () => {
  installFakeWebRtc();
  server = await FakeServer.start();
  server.onFrame = serve;
  room = new Room({ adaptiveStream: false });
  told = [];
  room.on('trackSubscribed', ({ id }) => told.push(`subscribed ${id}`));
  room.on('trackUnsubscribed', ({ id }) => told.push(`unsubscribed ${id}`));
  room.on('participantJoined', ({ identity }) => told.push(`joined ${identity}`));
  room.on('participantLeft', ({ identity }, reason) => told.push(`left ${identity}: ${reason}`));
  room.on('connectionStateChanged', (state) => told.push(state));
  room.on('disconnected', (reason) => told.push(`disconnected: ${reason}`));
});

afterEach(async () => {
  await room.disconnect();
  await server.close();
});

describe('connect', () => {
  it('offers everything at once and joins in one request', async () => {
    await connect();
    const [frame] = server.connection.frames;
    expect(frame?.body.case).toBe('join');
    const directions = pc().transceivers.map(({ kind, direction }) => `${kind} ${direction}`);
    expect(directions.filter((one) => one === 'video sendonly')).toHaveLength(4);
    expect(directions.filter((one) => one === 'audio sendonly')).toHaveLength(2);
    expect(directions.filter((one) => one === 'audio recvonly')).toHaveLength(6);
    expect(directions.filter((one) => one === 'video recvonly')).toHaveLength(9);
    expect(pc().answers).toEqual(['answer']);
  });

  it('gives the room as it is', async () => {
    await connect();
    expect(room.name).toBe('room');
    expect(room.localParticipant.identity).toBe('me');
    expect([...room.remoteParticipants.values()].map(({ identity }) => identity)).toEqual(['bob']);
    expect(told).toEqual(['connecting', `subscribed ${camera.id}`, 'connected']);
    const track = room.remoteParticipants.get(bob.id)?.track('camera');
    expect(track?.mediaStreamTrack).toBe(pc().line('6').receiver.track);
  });

  it('publishes given tracks with the join', async () => {
    const tracks = [new LocalTrack(fakeMedia('audio')), new LocalTrack(fakeMedia('video'))];
    await room.connect(server.url, 'token', { tracks, tag: 'main' });
    const [join] = server.framesOf('join');
    expect(join?.body.value).toMatchObject({ publications: [{ tag: 'main', tracks: [{ mid: '0' }, { mid: '1' }] }] });
    expect(room.localParticipant.isCameraEnabled && room.localParticipant.isMicrophoneEnabled).toBe(true);
    expect([...room.localParticipant.publications.keys()]).toEqual(['pub_me']);
  });

  it('is repeated when the server says so', async () => {
    const value = { code: ErrorCode.NO_CAPACITY, message: 'full', retryAfterMs: 5 };
    server.onFrame = (connection, frame) => {
      if (server.connections.length > 1) serve(connection, frame);
      else connection.reply(frame, { case: 'error', value });
    };
    await connect();
    expect(server.connections).toHaveLength(2);
  });

  it('fails with the code of the server and can be tried again', async () => {
    server.onFrame = (connection, frame) =>
      connection.reply(frame, { case: 'error', value: { code: ErrorCode.UNAUTHENTICATED, message: 'no' } });
    await expect(connect()).rejects.toMatchObject({ code: 'UNAUTHENTICATED', name: 'AuthError' });
    expect(room.state).toBe('disconnected');
    expect(pc().connectionState).toBe('closed');
    server.onFrame = serve;
    await connect();
    expect(room.state).toBe('connected');
  });

  it('fails when the browser refuses the answer', async () => {
    const create = RTCPeerConnection;
    class Refusing extends FakePeerConnection {
      override refusal = new Error('bad sdp');
    }
    Object.assign(globalThis, { RTCPeerConnection: Refusing });
    await expect(connect()).rejects.toBeInstanceOf(NegotiationError);
    Object.assign(globalThis, { RTCPeerConnection: create });
    expect(room.state).toBe('disconnected');
  });

  it('is refused while connected', async () => {
    await connect();
    await expect(connect()).rejects.toMatchObject({ code: 'BAD_STATE' });
  });
});

describe('the roster', () => {
  it('follows joins and leaves', async () => {
    await connect();
    const carol = { id: 'pa_carol', identity: 'carol', isConnected: true };
    server.connection.push({ case: 'participantJoined', value: { participant: carol } });
    server.connection.push({
      case: 'participantLeft',
      value: { participantId: bob.id, reason: LeaveReason.CLIENT_REQUEST },
    });
    await until(() => told.includes('left bob: client_request'));
    expect(told.slice(3)).toEqual(['joined carol', `unsubscribed ${camera.id}`, 'left bob: client_request']);
  });

  it('keeps a track the same object when it moves to another slot', async () => {
    await connect();
    const track = room.remoteParticipants.get(bob.id)?.track('camera') as RemoteTrack;
    let changed = 0;
    track.on('mediaChanged', () => changed++);
    server.connection.push({ case: 'slotsChanged', value: { slots: [slot('7', camera.id)] } });
    await until(() => changed === 1);
    expect(track.mediaStreamTrack).toBe(pc().line('7').receiver.track);
    expect(told.filter((one) => one.includes('subscribed'))).toHaveLength(1);
  });

  it('hides alternatives in other codecs', async () => {
    await connect();
    const tracks = [camera, { ...camera, id: 'tr_alt', alternativeOf: camera.id }];
    server.connection.push({ case: 'publicationUpdated', value: { publication: { ...publication, tracks } } });
    server.connection.push({ case: 'recordingChanged', value: { recordingId: 'r', isActive: true } });
    await until(() => room.recordings.has('r'));
    expect(room.remoteParticipants.get(bob.id)?.tracks.map(({ id }) => id)).toEqual([camera.id]);
  });

  it('takes a slot map that comes before its publication', async () => {
    await connect();
    const screen = { id: 'tr_screen', kind: TrackKind.VIDEO, source: TrackSource.SCREEN_SHARE };
    server.connection.push({
      case: 'slotsChanged',
      value: { slots: [slot('6', camera.id), slot('8', screen.id)] },
    });
    server.connection.push({
      case: 'publicationUpdated',
      value: { publication: { id: 'pub_2', participantId: bob.id, tracks: [screen] } },
    });
    await until(() => told.includes(`subscribed ${screen.id}`));
  });

  it('becomes what the snapshot says after a resume', async () => {
    await connect();
    room.simulateConnectionLoss();
    await until(() => told.includes('reconnecting') && room.state === 'connected');
    expect(told.slice(3)).toEqual(['reconnecting', `unsubscribed ${camera.id}`, 'connected']);
    expect(room.remoteParticipants.size).toBe(1);
  });

  it('follows the listeners of a large room', async () => {
    await connect();
    expect(server.framesOf('join')[0]?.body.value).toMatchObject({ takesParticipantsChanged: true });
    room.on('unlistedCountChanged', (count) => told.push(`unlisted ${count}`));
    room.on('participantUpdated', ({ name }) => told.push(`updated ${name}`));
    told = [];
    const person = (identity: string, name = ''): object => ({ id: `pa_${identity}`, identity, name, isConnected: true });
    const changed = (value: object): void => server.connection.push({ case: 'participantsChanged', value });
    const me = { id: 'me', identity: 'me', name: 'Me', isConnected: true };
    changed({ participants: [bob, me, person('carol'), person('dave')], unlistedCount: 7 });
    const left = [{ participantId: 'pa_carol', reason: LeaveReason.CLIENT_REQUEST }, { participantId: 'pa_nobody' }];
    changed({ participants: [person('dave', 'Dave')], left, unlistedCount: 7 });
    await until(() => told.includes('left carol: client_request'));
    expect(told).toEqual([
      'joined carol',
      'joined dave',
      'unlisted 7',
      'updated Dave',
      'left carol: client_request',
    ]);
    expect([room.localParticipant.name, room.remoteParticipants.size, room.unlistedCount]).toEqual(['Me', 2, 7]);
    // Too far behind: whoever is not named has left, and what he published has ended.
    changed({ participants: [person('dave', 'Dave'), person('erin')], isComplete: true });
    await until(() => told.includes('unlisted 0'));
    expect(told.slice(5)).toEqual(['joined erin', `unsubscribed ${camera.id}`, 'left bob: unknown', 'unlisted 0']);
  });

  it('tells mutes', async () => {
    await connect();
    room.on('trackMuted', (track, participant) => told.push(`muted ${track.source} of ${participant.identity}`));
    const tracks = [{ ...camera, isMuted: true }];
    server.connection.push({ case: 'publicationUpdated', value: { publication: { ...publication, tracks } } });
    await until(() => told.includes('muted camera of bob'));
  });

  it('names speakers', async () => {
    await connect();
    server.connection.push({
      case: 'speakersChanged',
      value: { speakers: [{ participantId: bob.id, level: 90 }, { participantId: 'gone', level: 80 }] },
    });
    await until(() => room.activeSpeakers.length === 1);
    expect(room.remoteParticipants.get(bob.id)?.isSpeaking).toBe(true);
    server.connection.push({ case: 'speakersChanged', value: {} });
    await until(() => room.activeSpeakers.length === 0);
    expect(room.remoteParticipants.get(bob.id)?.isSpeaking).toBe(false);
  });
});

describe('publishing', () => {
  it('uses the m-line that waits for the source', async () => {
    await connect();
    const published = await room.localParticipant.publishTrack(fakeMedia('video'), { tag: 'x' });
    const [frame] = server.framesOf('publish');
    expect(frame?.body.value).toMatchObject({
      publications: [{ tag: 'x', tracks: [{ mid: '1', layers: [{ rid: 'q', height: 180 }, { rid: 'h' }, { rid: 'f' }] }] }],
    });
    expect(pc().line('1').sender.track).toBe(published.tracks[0]?.mediaStreamTrack);
    expect(server.framesOf('negotiate')).toHaveLength(0);
  });

  it('negotiates a further m-line when the one is taken', async () => {
    await connect();
    await room.localParticipant.publishTrack(fakeMedia('video'));
    await room.localParticipant.publishTrack(fakeMedia('video'));
    expect(server.framesOf('negotiate')).toHaveLength(1);
    expect(room.localParticipant.publications.size).toBe(2);
  });

  it('gives the m-line back when the server refuses', async () => {
    await connect();
    server.onFrame = (connection, frame) => {
      const value = { code: ErrorCode.PERMISSION_DENIED, message: 'no' };
      if (frame.body.case === 'publish') connection.reply(frame, { case: 'error', value });
      else serve(connection, frame);
    };
    await expect(room.localParticipant.publishTrack(fakeMedia('video'))).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
    });
    expect(pc().line('1').sender.track).toBeNull();
    server.onFrame = serve;
    await room.localParticipant.publishTrack(fakeMedia('video'));
    expect(server.framesOf('negotiate')).toHaveLength(0);
  });

  it('refuses two pictures in one publication', async () => {
    await connect();
    const tracks = [new LocalTrack(fakeMedia('video')), new LocalTrack(fakeMedia('video'))];
    await expect(room.localParticipant.publish(tracks)).rejects.toMatchObject({ code: 'BAD_ARGUMENT' });
  });

  it('mutes here and there', async () => {
    await connect();
    const { tracks } = await room.localParticipant.publishTrack(fakeMedia('video'));
    const [track] = tracks;
    if (!track) throw new Error('no track');
    await room.localParticipant.mute(track);
    expect(server.framesOf('mute')[0]?.body.value).toMatchObject({ trackId: track.id, isMuted: true });
    expect(pc().line('1').sender.encodings.every(({ active }) => !active)).toBe(true);
    await room.localParticipant.unmute(track);
    expect(pc().line('1').sender.encodings.every(({ active }) => active)).toBe(true);
  });

  it('obeys an admin who mutes', async () => {
    await connect();
    const own = await room.localParticipant.publishTrack(fakeMedia('audio'));
    const [track] = own.tracks;
    const muted = { id: own.id, participantId: 'me', tracks: [{ id: track?.id ?? '', isMuted: true }] };
    server.connection.push({ case: 'publicationUpdated', value: { publication: muted } });
    await until(() => track?.isMuted);
    expect(track?.mediaStreamTrack.enabled).toBe(false);
    expect(server.framesOf('mute')).toHaveLength(0);
  });

  it('keeps to the cap of a track', async () => {
    await connect();
    const own = await room.localParticipant.publishTrack(fakeMedia('video'));
    const id = own.tracks[0]?.id ?? '';
    const sent = (): string => {
      const active = pc().line('1').sender.encodings.filter((encoding) => encoding.active);
      return active.map(({ rid, maxBitrate }) => `${rid}/${maxBitrate}`).join();
    };
    const free = sent();
    const push = (maxBitrateBps: number): void => {
      const publication = { id: own.id, participantId: 'me', tracks: [{ id, maxBitrateBps }] };
      server.connection.push({ case: 'publicationUpdated', value: { publication } });
    };
    push(450_000);
    await until(() => sent() === 'q/150000,h/300000');
    push(0);
    await until(() => sent() === free);
  });

  it('sends only layers that somebody receives', async () => {
    await connect();
    const { tracks } = await room.localParticipant.publishTrack(fakeMedia('video'));
    const trackId = tracks[0]?.id ?? '';
    server.connection.push({ case: 'layersWanted', value: { trackId, rids: ['q'] } });
    const active = (): string =>
      pc()
        .line('1')
        .sender.encodings.filter((encoding) => encoding.active)
        .map(({ rid }) => rid)
        .join();
    await until(() => active() === 'q');
    server.connection.push({ case: 'layersWanted', value: { trackId, rids: ['q', 'h', 'f'] } });
    await until(() => active() === 'q,h,f');
  });

  it('adds a further codec on a spare m-line, once', async () => {
    await connect();
    const { tracks } = await room.localParticipant.publishTrack(fakeMedia('video'));
    const trackId = tracks[0]?.id ?? '';
    for (let i = 0; i < 2; i++) {
      server.connection.push({ case: 'codecRequested', value: { trackId, codecs: ['av1', 'h264'] } });
    }
    await until(() => server.framesOf('publish').length === 2);
    const [, alternative] = server.framesOf('publish');
    expect(alternative?.body.value).toMatchObject({
      publications: [{ cid: `${trackId}:h264`, tracks: [{ alternativeOf: trackId, mid: '4' }] }],
    });
    expect(pc().line('4').codecs).toEqual(['video/H264', 'video/rtx']);
    await until(() => tracks[0]?.alternatives.length === 1);
    expect(server.framesOf('publish')).toHaveLength(2);
  });

  it('ends when the device is taken away', async () => {
    await connect();
    const { tracks } = await room.localParticipant.publishTrack(fakeMedia('video'));
    tracks[0]?.mediaStreamTrack.onended?.(new Event('ended'));
    await until(() => server.framesOf('unpublish').length === 1);
    expect(room.localParticipant.publications.size).toBe(0);
    expect(pc().line('1').sender.track).toBeNull();
  });
});

describe('media', () => {
  it('that is lost moves to a new transport with everything on it', async () => {
    await connect();
    pc().become('connected');
    const { tracks } = await room.localParticipant.publishTrack(fakeMedia('video'));
    room.on('mediaLost', () => told.push('lost'));
    room.on('mediaRestored', () => told.push('restored'));
    const old = pc();
    server.connection.push({ case: 'mediaLost', value: { message: 'node died' } });
    await until(() => FakePeerConnection.all.length === 2 && pc().answers.length === 1);
    pc().become('connected');
    await until(() => told.includes('restored'));
    expect(old.connectionState).toBe('closed');
    const [negotiate] = server.framesOf('negotiate');
    expect(negotiate?.body.value).toMatchObject({ newTransport: true, trackMids: { [tracks[0]?.id ?? '']: '1' } });
    const remote = room.remoteParticipants.get(bob.id)?.track('camera');
    expect(remote?.mediaStreamTrack).toBe(pc().line('6').receiver.track);
    expect(told.filter((one) => one.includes('subscribed'))).toHaveLength(1);
  });

  it('is replaced when the path fails', async () => {
    await connect();
    pc().become('connected');
    pc().become('failed');
    await until(() => FakePeerConnection.all.length === 2);
  });

  it('is tried again when the server has no room', async () => {
    await connect();
    server.onFrame = (connection, frame) => {
      const value = { code: ErrorCode.NO_CAPACITY, message: 'full', retryAfterMs: 1 };
      if (frame.body.case === 'negotiate' && server.framesOf('negotiate').length === 1) {
        connection.reply(frame, { case: 'error', value });
      } else serve(connection, frame);
    };
    pc().become('failed');
    await until(() => server.framesOf('negotiate').length === 2);
  });

  it('keeps the slots that are told while an answer is taken', async () => {
    await connect();
    const received = (): unknown => room.remoteParticipants.get(bob.id)?.track('camera')?.mediaStreamTrack;
    let accept = (): void => undefined;
    const gate = new Promise<void>((resolve) => (accept = resolve));
    pc().onAnswer = () => {
      server.connection.push({ case: 'slotsChanged', value: { slots: [slot('7', camera.id)] } });
      return gate;
    };
    server.connection.push({ case: 'slotsNeeded', value: { audio: 0, video: 1 } });
    await until(() => received() === pc().line('7').receiver.track);
    accept();
    await until(() => pc().answers.length === 2);
    expect(received()).toBe(pc().line('7').receiver.track);
  });

  it('grows the slots when asked to', async () => {
    await connect();
    server.connection.push({ case: 'slotsNeeded', value: { audio: 1, video: 2 } });
    await until(() => server.framesOf('negotiate').length === 1);
    expect(pc().transceivers).toHaveLength(24);
  });
});

describe('messages', () => {
  it('are sent as UTF-8', async () => {
    await connect();
    expect(await room.sendMessage('grüß', { topic: 't', to: ['bob'] })).toBe(11);
    expect(server.framesOf('sendMessage')[0]?.body.value).toMatchObject({
      payload: new TextEncoder().encode('grüß'),
      topic: 't',
      to: ['bob'],
    });
  });

  it('that are too large are not sent', async () => {
    await connect();
    await expect(room.sendMessage(new Uint8Array(65_537))).rejects.toMatchObject({ code: 'TOO_LARGE' });
  });

  it('name their sender', async () => {
    await connect();
    const got = new Promise<string>((resolve) =>
      room.on('messageReceived', ({ participant, text, seq }) => resolve(`${participant?.name ?? ''} ${text} ${seq}`)),
    );
    const payload = new TextEncoder().encode('hi');
    server.connection.push({
      case: 'messageReceived',
      value: { messageSeq: 12n, participantId: bob.id, identity: 'bob', payload },
    });
    expect(await got).toBe('bob hi 12');
  });
});

describe('the end', () => {
  it('is told to the server and to the application', async () => {
    await connect();
    await room.disconnect();
    expect(server.framesOf('leave')).toHaveLength(1);
    expect(told.slice(3)).toEqual([`unsubscribed ${camera.id}`, 'disconnected', 'disconnected: client_request']);
    expect(pc().connectionState).toBe('closed');
  });

  it('comes from the server too', async () => {
    await connect();
    server.connection.push({ case: 'closing', value: { reason: LeaveReason.REMOVED, canResume: false } });
    await until(() => told.includes('disconnected: removed'));
    expect(room.state).toBe('disconnected');
    await expect(room.sendMessage('x')).rejects.toMatchObject({ code: 'BAD_STATE' });
  });
});

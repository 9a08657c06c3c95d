//! Round trips of every message, replay, forgery.

use super::*;
use crate::ext::AudioLevel;
use crate::id::SeqNo;
use proptest::prelude::*;

fn pair() -> (Sealer, Opener) {
    (Sealer::new(7, &[1; 16], &[2; 12]), Opener::new(&[1; 16], &[2; 12]))
}

fn seal(tx: &mut Sealer, message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![0; 2000];
    let n = tx.seal(message, &mut out).unwrap();
    out.truncate(n);
    out
}

#[test]
fn every_message_travels() {
    let numbers = [SeqNo(3), SeqNo(65_535)];
    let media = Media {
        handle: 9,
        layer: 2,
        flags: MediaFlags { marker: true, is_keyframe: true, ..MediaFlags::default() },
        seq: 0x1234_5678,
        rtp_timestamp: 90_000,
        audio_level: Some(AudioLevel { level: 30, is_voice: true }),
        dependency_descriptor: Some(&[1, 2, 3]),
        payload: b"payload",
    };
    let messages = [
        Message::Media(media),
        Message::Media(Media { handle: 1, ..Media::default() }),
        Message::Nack { handle: 9, layer: 1, seqs: SeqList::Numbers(&numbers) },
        Message::KeyframeRequest { handle: 9, layer: 1 },
        Message::LayersWanted { handle: 9, mask: 5, temporal: 2 },
        Message::SenderReport { handle: 9, layer: 1, rtp_timestamp: 5, ntp_unix_us: -6 },
        Message::TrackEnded { handle: 9 },
        Message::Ping { id: 1, sent_at_us: 2 },
        Message::Pong { id: 1, sent_at_us: u64::MAX },
    ];
    let (mut tx, mut rx) = pair();
    for message in &messages {
        let mut packet = seal(&mut tx, message);
        assert_eq!(packet.len(), message.encoded_len() + OVERHEAD);
        assert_eq!(association_tag(&packet), Some(7));
        assert_eq!(rx.open(&mut packet).unwrap(), *message);
    }
}

#[test]
fn replayed_and_forged_packets_are_refused() {
    let (mut tx, mut rx) = pair();
    let packet = seal(&mut tx, &Message::TrackEnded { handle: 1 });
    for at in 1..packet.len() {
        let mut forged = packet.clone();
        forged[at] ^= 0x40;
        assert_eq!(rx.open(&mut forged), Err(RelayError::AuthenticationFailed));
    }
    assert!(rx.open(&mut packet.clone()).is_ok());
    assert_eq!(rx.open(&mut packet.clone()), Err(RelayError::Replayed));
    assert!(matches!(rx.open(&mut packet[..10].to_vec()), Err(RelayError::Parse(_))));
}

#[test]
fn limits() {
    let (mut tx, _) = pair();
    let message = Message::TrackEnded { handle: 1 };
    assert_eq!(tx.seal(&message, &mut [0; 20]), Err(RelayError::BufferTooSmall));
    tx.next_number = MAX_PACKET_NUMBER + 1;
    assert_eq!(tx.seal(&message, &mut [0; 200]), Err(RelayError::NumbersExhausted));
    let long = [0; 300];
    let media = Media { dependency_descriptor: Some(&long), ..Media::default() };
    assert_eq!(Message::Media(media).encoded_len(), 15);
    assert_eq!(association_tag(&[0x80; 20]), None);
    assert_ne!(tag_of_name("a"), tag_of_name("b"));
}

#[test]
fn bodies_have_exact_lengths() {
    assert!(Message::decode(&[6, 0, 0, 0, 1, 0]).is_err());
    assert!(Message::decode(&[2, 0, 0, 0, 1, 0, 9]).is_err());
    assert!(Message::decode(&[99, 0, 0, 0, 1]).is_err());
    assert!(Message::decode(&[1, 0, 0, 0, 1, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 9]).is_err());
}

proptest! {
    #[test]
    fn decoding_never_panics(body in prop::collection::vec(any::<u8>(), 0..60), kind in 0u8..10) {
        let _ = Message::decode(&body);
        let mut body = body;
        if let Some(first) = body.first_mut() {
            *first = kind;
        }
        if let Ok(message) = Message::decode(&body) {
            let mut again = vec![0; message.encoded_len()];
            message.encode(&mut again);
            prop_assert_eq!(Message::decode(&again).unwrap(), message);
        }
    }
}

//! Data messages: from the participant who said them to everybody else of the room, in this shard and in the others.

use std::sync::Arc;

use super::Shard;
use crate::data::frame::{MAX_NAME_BYTES, MAX_NAMES};
use crate::data::port::Access;
use crate::data::relay_port::RelayPort;
use crate::data::{Content, DataMessage, Delivery, is_topic};
use crate::error::Error;
use crate::event::Reply;
use crate::id::{RelayId, RoomId, ShardIndex, TransportId};
use crate::keys::{RelaySlot, TransportKey};
use crate::shard_message::ShardMessage;

/// Who receives a room's data.
#[derive(Debug, Default)]
pub(super) struct DataRoom {
    members: Vec<TransportKey>,
    /// Relays to nodes that want the room's data.
    relays: Vec<RelaySlot>,
    /// Other shards with members.
    shards: Vec<ShardIndex>,
}

impl DataRoom {
    /// True if somebody here is to be told.
    fn has_receivers(&self) -> bool {
        !(self.members.is_empty() && self.relays.is_empty())
    }
}

impl Shard {
    pub(super) fn set_data_access(
        &mut self,
        id: &TransportId,
        identity: &str,
        can_publish: bool,
    ) -> Result<Reply, Error> {
        check_identity(identity)?;
        let key = self.find_transport(id)?;
        let data = self.transports[key.index()].data.get_or_insert_default();
        data.access = Some(Access { identity: identity.into(), can_publish });
        self.update_data_member(key);
        // What the client said so far waits for this.
        self.take_data(key);
        self.arm_transport(key);
        Ok(Reply::Done)
    }

    /// Sends a message that comes from no transport.
    pub(super) fn send_data(
        &mut self,
        room: RoomId,
        sender: &str,
        topic: &str,
        is_reliable: bool,
        content: Content<'_>,
    ) -> Result<Reply, Error> {
        check_identity(sender)?;
        content.to.iter().try_for_each(|name| check_identity(name))?;
        let delivery = if is_reliable { Delivery::RELIABLE } else { Delivery::LOSSY };
        if !is_topic(topic) {
            return Err(Error::BadRequest("a topic has 1 to 64 visible ASCII characters".into()));
        }
        if content.to.len() > MAX_NAMES {
            return Err(Error::LimitExceeded(format!("{MAX_NAMES} addressees")));
        }
        if content.payload.len() > delivery.max_payload() {
            return Err(Error::LimitExceeded(format!("{} bytes of a data message", delivery.max_payload())));
        }
        let message = DataMessage::new(room, sender.into(), topic.into(), delivery, content);
        // Each node is told by itself.
        self.fan_out_data(DataMessage { is_local: true, ..message });
        Ok(Reply::Done)
    }

    /// A transport whose data channels are negotiated and whose client is known receives.
    pub(super) fn update_data_member(&mut self, key: TransportKey) {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        transport.settle_data(now);
        let room = transport.room.clone();
        let Some(port) = transport.data_port() else { return };
        if port.access.is_none() || std::mem::replace(&mut port.is_member, true) {
            return;
        }
        self.change_data_room(&room, |data_room| data_room.members.push(key));
    }

    /// Changes who receives, and tells the other shards if that makes a difference to them.
    fn change_data_room(&mut self, room: &RoomId, change: impl FnOnce(&mut DataRoom)) {
        let data_room = self.data_rooms.entry(room.clone()).or_default();
        let had_receivers = data_room.has_receivers();
        change(data_room);
        let has_receivers = data_room.has_receivers();
        if has_receivers != had_receivers {
            self.tell_data_room(room, has_receivers);
        }
        self.drop_empty_data_room(room);
    }

    pub(super) fn leave_data_room(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.index()];
        let room = transport.room.clone();
        if !transport.data_port().is_some_and(|port| std::mem::take(&mut port.is_member)) {
            return;
        }
        self.change_data_room(&room, |data_room| data_room.members.retain(|member| *member != key));
    }

    fn tell_data_room(&mut self, room: &RoomId, has_members: bool) {
        for shard in (0..self.config.shard_count).map(ShardIndex).filter(|s| *s != self.config.index) {
            self.messages.push_back((shard, ShardMessage::DataRoom { room: room.clone(), has_members }));
        }
    }

    /// Another shard has members of the room now, or no longer.
    pub(super) fn note_data_peer(&mut self, from: ShardIndex, room: RoomId, has_members: bool) {
        let data_room = self.data_rooms.entry(room.clone()).or_default();
        data_room.shards.retain(|shard| *shard != from);
        if has_members {
            data_room.shards.push(from);
        }
        self.drop_empty_data_room(&room);
    }

    fn drop_empty_data_room(&mut self, room: &RoomId) {
        if self.data_rooms.get(room).is_some_and(|r| !r.has_receivers() && r.shards.is_empty()) {
            self.data_rooms.remove(room);
        }
    }

    /// Takes what a client said and passes it on.
    pub(super) fn take_data(&mut self, key: TransportKey) {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        let Some(port) = transport.data.as_mut().and_then(|d| d.port.as_mut()) else { return };
        let mut said = Vec::new();
        port.receive(now, &transport.room, &mut self.counters, &mut said);
        said.into_iter().for_each(|message| self.fan_out_data(message));
        // Acknowledgements and the like.
        self.mark_transport(key);
    }

    /// A message of this shard goes to all.
    fn fan_out_data(&mut self, message: DataMessage) {
        let message = Arc::new(message);
        let Some(room) = self.data_rooms.get(&message.room) else { return };
        for shard in &room.shards {
            self.counters.tx_shard_data += 1;
            self.messages.push_back((*shard, ShardMessage::Data(message.clone())));
        }
        self.deliver_data(&message);
    }

    /// A message goes to those of its receivers who are here.
    pub(super) fn deliver_data(&mut self, message: &DataMessage) {
        let now = self.now;
        let Some(room) = self.data_rooms.get(&message.room) else { return };
        if !message.is_local {
            for relay in room.relays.clone() {
                if let Some(data) = self.relays.get_mut(relay.index()).and_then(|link| link.data.as_mut()) {
                    data.send(message, &mut self.counters);
                    self.mark_relay(relay);
                }
            }
        }
        let Some(room) = self.data_rooms.get(&message.room) else { return };
        for key in room.members.clone() {
            let Some(port) = self.transports.get_mut(key.index()).and_then(|t| t.data_port()) else { continue };
            let is_wanted = port.access.as_ref().is_some_and(|access| message.is_for(&access.identity));
            if is_wanted && port.send(now, message, &mut self.counters) {
                self.mark_transport(key);
            }
        }
    }

    // Other nodes

    pub(super) fn export_data(&mut self, relay: &RelayId, room: RoomId, handle: u32) -> Result<Reply, Error> {
        let key = self.find_relay(relay)?;
        self.relay_port(key, false).export(room.clone(), handle);
        self.change_data_room(&room, |data_room| {
            data_room.relays.retain(|relay| *relay != key);
            data_room.relays.push(key);
        });
        self.arm_relay(key);
        Ok(Reply::Done)
    }

    pub(super) fn import_data(&mut self, relay: &RelayId, room: RoomId, handle: u32) -> Result<Reply, Error> {
        let key = self.find_relay(relay)?;
        self.relay_port(key, true).import(room, handle);
        // The association begins.
        self.mark_relay(key);
        self.arm_relay(key);
        Ok(Reply::Done)
    }

    pub(super) fn stop_data(&mut self, relay: &RelayId, room: &RoomId) {
        let Ok(key) = self.find_relay(relay) else { return };
        if let Some(data) = &mut self.relays[key.index()].data {
            data.unexport(room);
            data.unimport(room);
        }
        self.leave_data_room_by_relay(room, key);
    }

    pub(super) fn leave_data_room_by_relay(&mut self, room: &RoomId, key: RelaySlot) {
        self.change_data_room(room, |data_room| data_room.relays.retain(|relay| *relay != key));
    }

    fn relay_port(&mut self, key: RelaySlot, is_client: bool) -> &mut RelayPort {
        self.relays[key.index()].data.get_or_insert_with(|| Box::new(RelayPort::new(is_client)))
    }

    pub(super) fn take_relayed_data(&mut self, key: RelaySlot, datagram: &[u8]) {
        let now = self.now;
        let Some(data) = &mut self.relays[key.index()].data else { return };
        let mut said = Vec::new();
        data.handle_input(now, datagram, &mut self.counters, &mut said);
        said.into_iter().for_each(|message| self.fan_out_data(message));
        self.mark_relay(key);
        self.arm_relay(key);
    }
}

fn check_identity(identity: &str) -> Result<(), Error> {
    if (1..=MAX_NAME_BYTES).contains(&identity.len()) {
        return Ok(());
    }
    Err(Error::BadRequest(format!("an identity has 1 to {MAX_NAME_BYTES} bytes")))
}

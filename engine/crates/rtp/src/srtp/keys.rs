//! Protection profiles and the keys that the DTLS handshake exports.

use super::SrtpError;

/// A protection profile (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// AEAD_AES_128_GCM.
    AeadAes128Gcm,
    /// AEAD_AES_256_GCM.
    AeadAes256Gcm,
    /// AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80,
}

impl Profile {
    /// The DTLS extension's number, as in [`Self::from_dtls_id`].
    pub fn dtls_id(self) -> u16 {
        match self {
            Self::Aes128CmSha1_80 => 0x0001,
            Self::AeadAes128Gcm => 0x0007,
            Self::AeadAes256Gcm => 0x0008,
        }
    }

    /// Of the DTLS extension's number.
    pub fn from_dtls_id(id: u16) -> Option<Self> {
        match id {
            0x0001 => Some(Self::Aes128CmSha1_80),
            0x0007 => Some(Self::AeadAes128Gcm),
            0x0008 => Some(Self::AeadAes256Gcm),
            _ => None,
        }
    }

    /// Bytes of a master key.
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of a master salt.
    pub fn salt_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that the handshake exports: key and salt of both sides.
    pub fn material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes that sealing adds to an RTP packet.
    pub fn rtp_overhead(self) -> usize {
        self.tag_len()
    }

    pub(super) fn tag_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 10,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }
}

/// Master key and salt of one direction.
#[derive(Clone)]
pub struct MasterKey {
    pub(super) key: Vec<u8>,
    pub(super) salt: Vec<u8>,
}

impl MasterKey {
    /// Of raw key and salt, in the lengths of the profile that they will be used with.
    pub fn new(key: &[u8], salt: &[u8]) -> Self {
        Self { key: key.to_vec(), salt: salt.to_vec() }
    }

    /// Key and salt as they were given.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.key, &self.salt)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// The keys of both directions of a transport.
#[derive(Clone, Debug)]
pub struct SessionKeys {
    /// Which profile was agreed on.
    pub profile: Profile,
    /// What this side sends is sealed with it.
    pub tx: MasterKey,
    /// What the other side sends is opened with it.
    pub rx: MasterKey,
}

impl SessionKeys {
    /// Splits the exported material (RFC 5764 section 4.2): client key, server key, client salt, server salt.
    ///
    /// `is_client_side` tells whether this side is the DTLS client.
    pub fn from_dtls(profile: Profile, material: &[u8], is_client_side: bool) -> Result<Self, SrtpError> {
        if material.len() < profile.material_len() {
            return Err(SrtpError::BadKeyMaterial);
        }
        let (client_key, rest) = material.split_at(profile.key_len());
        let (server_key, rest) = rest.split_at(profile.key_len());
        let (client_salt, rest) = rest.split_at(profile.salt_len());
        let server_salt = &rest[..profile.salt_len()];
        let client = MasterKey::new(client_key, client_salt);
        let server = MasterKey::new(server_key, server_salt);
        let (tx, rx) = if is_client_side { (client, server) } else { (server, client) };
        Ok(Self { profile, tx, rx })
    }
}

//! DNS of the node, as the programs at pods' devices know it: where it is asked, the answers that they give themselves, and
//! who is asked while the node's own agent does not answer.

use crate::{Addr4, Addr6};

/// Names of the maps. None is pinned: with the agent that wrote them they are gone, and with them all answers.
pub mod maps {
    /// `Array<Names>`, one entry.
    pub const NAMES: &str = "NAMES";
    /// `Array<u64>` by `word`.
    pub const NAMES_WORDS: &str = "NAMES_WORDS";
    /// `HashMap<Question, Answer>`.
    pub const ANSWERS: &str = "ANSWERS";
    /// `PerCpuArray<NameCounts>` by the place of the server in `Names`: IPv4 first, then IPv6.
    pub const NAMES_COUNTS: &str = "NAMES_COUNTS";
    /// Program array with `ANSWER_TC` in its one place. It empties as the agent ends, however it ends, before the agent's sockets
    /// are closed: this is how the programs see at once that nobody answers any more.
    pub const ANSWER_TC: &str = "ANSWER_TC";
    /// The same for XDP.
    pub const ANSWER_XDP: &str = "ANSWER_XDP";
}

/// Names of the programs in the object file.
pub mod programs {
    /// tc, called by those at pods' devices: answers a question, or passes it on to the agent.
    pub const ANSWER_TC: &str = "answer_tc";
    /// The same for XDP.
    pub const ANSWER_XDP: &str = "answer_xdp";
}

/// Indices of `NAMES_WORDS`.
pub mod word {
    /// When the agent's DNS was last seen to live, in ns of the monotonic clock; 0: it is down.
    pub const BEAT: u32 = 0;
    /// Serial number of the zones' SOA records, for answers that have one.
    pub const SERIAL: u32 = 1;
    /// Number of words.
    pub const COUNT: u32 = 2;
}

/// The agent is taken for dead when it has not been seen for so long, ns. Resolvers ask again after 1 s at the earliest (JNDI;
/// glibc and Go after 5 s), and a busy machine may well keep an agent waiting for some tenths of a second.
pub const BEAT_MAX: u64 = 1_000_000_000;

/// Addresses of the node's DNS, of each family.
pub const SERVERS: usize = 4;
/// Other nodes' agents that are known, of each family.
pub const PEERS: usize = 8;
/// Octets of a name that is answered by the programs, with its length octets and the root.
pub const NAME_MAX: usize = 128;
/// Octets of what follows the question in such an answer, without OPT.
pub const ANSWER_MAX: usize = 64;
/// `Answer::serial_at` of an answer without a serial number.
pub const NO_SERIAL: u8 = 255;

pod! {
    /// Where DNS is asked, and who stands in.
    pub struct Names = 256 {
        /// Addresses at whose port 53 pods ask; unused places are zero.
        pub servers4: [Addr4; SERVERS],
        /// As `servers4`.
        pub servers6: [Addr6; SERVERS],
        /// Other nodes' agents.
        pub peers4: [Addr4; PEERS],
        /// As `peers4`.
        pub peers6: [Addr6; PEERS],
        /// How many of `peers4` there are.
        pub count4: u32,
        /// How many of `peers6` there are.
        pub count6: u32,
        /// Port at which the others answer.
        pub port: [u8; 2],
        pub pad: [u8; 6],
    }

    /// What is asked for: class IN.
    pub struct Question = 136 {
        /// The name in wire form and lower case, with zeros behind it; bytes as they lie in memory.
        pub name: [u64; NAME_MAX / 8],
        /// In host order.
        pub qtype: u32,
        pub pad: u32,
    }

    /// What follows the question. The name asked for lies 12 bytes into the message.
    pub struct Answer = 72 {
        /// Records of the answer section.
        pub answers: u8,
        /// Records of the authority section.
        pub authority: u8,
        /// Octets of `data`.
        pub length: u8,
        /// Where in `data` the serial number goes, or `NO_SERIAL`.
        pub serial_at: u8,
        /// The size of UDP payloads that OPT advertises, in network order.
        pub advertise: [u8; 2],
        pub pad: [u8; 2],
        /// Bytes as they lie in memory.
        pub data: [u64; ANSWER_MAX / 8],
    }

    /// What the programs have answered for one server address.
    pub struct NameCounts = 80 {
        /// Questions for A.
        pub a: u64,
        /// Questions for AAAA.
        pub aaaa: u64,
        /// Questions with DO.
        pub dnssec_ok: u64,
        /// Octets of all questions.
        pub request_bytes: u64,
        /// Octets of all answers.
        pub response_bytes: u64,
        /// Questions of more than 100 octets.
        pub request_100: u64,
        /// Answers of more than 100 octets.
        pub response_100: u64,
        /// Answers of more than 200 octets.
        pub response_200: u64,
        /// Packets that another node was chosen for.
        pub elsewhere: u64,
        pub pad: u64,
    }
}

impl Question {
    /// The question for a name in wire form and lower case; `None`: the name is too long.
    pub fn new(name: &[u8], qtype: u16) -> Option<Self> {
        let mut question = Self { qtype: qtype.into(), ..Self::default() };
        words(name, &mut question.name).then_some(question)
    }
}

impl Answer {
    /// The answer with so many records in the answer section and in the authority section, which are `data`; `serial_at`: where
    /// in it the serial number goes. `None`: the data is too long.
    pub fn new(counts: [u8; 2], data: &[u8], serial_at: Option<u8>, udp_payload: u16) -> Option<Self> {
        let [answers, authority] = counts;
        let mut answer = Self {
            answers,
            authority,
            length: data.len() as u8,
            serial_at: serial_at.unwrap_or(NO_SERIAL),
            advertise: udp_payload.to_be_bytes(),
            ..Self::default()
        };
        words(data, &mut answer.data).then_some(answer)
    }
}

/// Puts bytes into words as they are to lie in memory; false when there are too many.
fn words(bytes: &[u8], to: &mut [u64]) -> bool {
    for (word, bytes) in to.iter_mut().zip(bytes.chunks(8)) {
        let mut own = [0; 8];
        own[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(own);
    }
    bytes.len() <= to.len() * 8
}

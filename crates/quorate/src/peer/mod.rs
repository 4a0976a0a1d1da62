//! Everything between members: framing, connections, queues, handshakes. What the frames mean is the node's affair.

pub(crate) mod asks;

//! A client and a server on this machine's cores: what goes in comes out, within the precision promised.

mod secure;
mod toy;
mod world;

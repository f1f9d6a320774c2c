//! Reads on replicas: who answers, how new it is, and what happens when a replica is not well.

mod looking;
mod network;
mod pairs;
mod reading;
mod rig;
mod shut_out;
mod trouble;

//! `kill -9` of the server at any moment.

//! The relay's own TLS, against rustls and OpenSSL as clients.

mod authorities;
mod hostile;
mod sessions;
mod stage;

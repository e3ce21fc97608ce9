//! HTTP/1 as far as a relay speaks it.

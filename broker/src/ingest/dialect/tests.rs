//! What holds for every dialect; each one's own rules are tested beside it and on recordings in `tests/recordings.rs`.

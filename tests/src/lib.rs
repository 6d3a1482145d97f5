//! The whole mesh under test, faults, and the house rules as tests.

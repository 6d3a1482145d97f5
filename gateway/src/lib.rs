//! Agent plan in, subtask RPCs out.

use super::*;

fn append(files: &mut Files, payloads: &[&str]) {
    let frame = |payload: &&str| {
        let mut frame = Vec::new();
        frame::write(payload.as_bytes(), &mut frame);
        frame
    };
    let frames: Vec<Vec<u8>> = payloads.iter().map(frame).collect();
    files.append(frames.iter().map(Vec::as_slice)).expect("appended");
}

fn all(files: &mut Files) -> Vec<(Position, String)> {
    let (found, _) = files.read(Position::default(), usize::MAX).expect("read");
    found
        .into_iter()
        .map(|(p, bytes)| (p, String::from_utf8(bytes).expect("text")))
        .collect()
}

fn texts(files: &mut Files) -> Vec<String> {
    all(files).into_iter().map(|(_, text)| text).collect()
}

fn acknowledge_all(files: &mut Files) {
    let positions: Vec<Position> = all(files).into_iter().map(|(p, _)| p).collect();
    files.acknowledge(&positions);
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path());
    let mut segments: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    segments
}

#[test]
fn what_was_written_is_there_after_a_kill_and_gone_only_after_its_acknowledgement() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    append(&mut files, &["a", "b", "c"]);
    // A kill runs no destructor: what it leaves is what is in the folder now, and a lock that the system has taken back.
    let left = folder.path().join("copy");
    fs::create_dir(&left).expect("folder");
    for segment in segments(folder.path()) {
        fs::copy(&segment, left.join(segment.file_name().expect("name"))).expect("copied");
    }
    let mut files = Files::open(&left).expect("opened");
    assert_eq!(texts(&mut files), ["a", "b", "c"]);
    let first = all(&mut files)[0].0;
    files.acknowledge(&[first]);
    assert_eq!(texts(&mut files), ["b", "c"]);
    drop(files);
    let mut files = Files::open(&left).expect("opened");
    assert_eq!(
        texts(&mut files),
        ["a", "b", "c"],
        "an acknowledgement is forgotten with the process; feedback knows the id"
    );
    acknowledge_all(&mut files);
    assert_eq!((files.waiting(), files.bytes()), (0, 0));
    drop(files);
    assert!(segments(&left).is_empty(), "nothing is left behind");
}

#[test]
fn a_torn_tail_is_passed_over_and_what_follows_it_later_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    append(&mut files, &["a", "b"]);
    drop(files);
    let segment = segments(folder.path()).pop().expect("segment");
    let length = fs::metadata(&segment).expect("there").len();
    OpenOptions::new()
        .write(true)
        .open(&segment)
        .expect("open")
        .set_len(length - 1)
        .expect("cut");
    let mut files = Files::open(folder.path()).expect("opened");
    append(&mut files, &["c"]);
    assert_eq!(texts(&mut files), ["a", "c"]);
    drop(files);
    let mut files = Files::open(folder.path()).expect("opened");
    assert_eq!(texts(&mut files), ["a", "c"]);
    acknowledge_all(&mut files);
    assert!(!segment.with_extension("damaged").exists(), "a kill is no damage");
}

#[test]
fn zeros_that_a_power_cut_left_behind_an_outcome_are_none_and_what_follows_later_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    append(&mut files, &["a"]);
    drop(files);
    let segment = segments(folder.path()).pop().expect("segment");
    // The file's new length arrived, a block of it, and the bytes of its second write did not.
    let grown = OpenOptions::new().write(true).open(&segment).expect("open");
    grown.set_len(4096).expect("grown");
    let mut files = Files::open(folder.path()).expect("opened");
    assert_eq!((texts(&mut files), files.waiting()), (vec!["a".to_owned()], 1));
    append(&mut files, &["b"]);
    assert_eq!(texts(&mut files), ["a", "b"]);
    drop(files);
    assert_eq!(texts(&mut Files::open(folder.path()).expect("opened")), ["a", "b"]);
    assert!(
        !segment.with_extension("damaged").exists(),
        "nothing was lost that had been written"
    );
}

#[test]
fn a_damaged_segment_gives_what_is_whole_and_is_then_set_aside_for_people() {
    // A payload, and a length that leads past the file's end: a torn tail to look at, and yet "c" is behind it.
    for (damaged, byte) in [("payload", 8), ("length", 1)] {
        let folder = tempfile::tempdir().expect("folder");
        let mut files = Files::open(folder.path()).expect("opened");
        append(&mut files, &["a", "bbbb", "c"]);
        drop(files);
        let segment = segments(folder.path()).pop().expect("segment");
        let mut bytes = fs::read(&segment).expect("read");
        bytes[frame::HEADER + 1 + byte] ^= 1;
        fs::write(&segment, &bytes).expect("damaged");
        let mut files = Files::open(folder.path()).expect("opened");
        assert_eq!(texts(&mut files), ["a"], "{damaged}");
        // What was set aside in another life stays there as well.
        fs::write(segment.with_extension("damaged"), "before").expect("written");
        acknowledge_all(&mut files);
        let kept = fs::read(segment.with_extension("2.damaged")).expect("kept");
        assert!(kept == bytes && !segment.exists(), "{damaged}: no byte is lost");
        assert_eq!(fs::read(segment.with_extension("damaged")).expect("there"), b"before");
    }
}

#[test]
fn an_outcome_that_is_damaged_while_it_waits_costs_no_other_one() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    append(&mut files, &["a", "bbbb", "c"]);
    let segment = segments(folder.path()).pop().expect("segment");
    let mut bytes = fs::read(&segment).expect("read");
    bytes[frame::HEADER + 1] ^= 1;
    fs::write(&segment, &bytes).expect("damaged");
    assert_eq!(texts(&mut files), ["a", "c"]);
    append(&mut files, &["d"]);
    assert_eq!(texts(&mut files), ["a", "c", "d"]);
    assert_eq!(files.waiting(), 3, "nobody waits for it");
    assert_eq!(segments(folder.path()).len(), 2, "nothing is written behind the damage");
    acknowledge_all(&mut files);
    assert_eq!(fs::read(segment.with_extension("damaged")).expect("kept"), bytes);
    assert_eq!((files.waiting(), files.bytes()), (0, 0));
}

#[test]
fn a_segment_that_cannot_be_read_holds_up_nothing_behind_it_and_no_start() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    let full = "x".repeat(SEGMENT as usize);
    append(&mut files, &[&full]);
    append(&mut files, &[&full]);
    append(&mut files, &["a"]);
    // The first is gone; in the place of the last, which is appended to, lies something that no read gives a byte of.
    let [gone, _, unreadable] = segments(folder.path()).try_into().expect("three segments");
    fs::remove_file(gone).expect("removed");
    let replace = || {
        drop(fs::remove_file(&unreadable));
        fs::create_dir(&unreadable).expect("folder");
    };
    replace();
    let (found, next) = files.read(Position::default(), 9).expect("read");
    assert_eq!((found.len(), files.waiting()), (1, 1), "the one between them");
    assert!(unreadable.with_extension("damaged").is_dir());
    append(&mut files, &["b"]);
    let (found, _) = files.read(next, 9).expect("read");
    assert_eq!(found.into_iter().map(|(_, b)| b).collect::<Vec<_>>(), [b"b"]);
    drop(files);
    replace();
    let mut files = Files::open(folder.path()).expect("one file does not keep a gateway from its start");
    assert_eq!(texts(&mut files), [full.as_str(), "b"]);
    assert!(!unreadable.exists());
}

#[test]
fn segments_are_sealed_read_in_order_in_portions_and_deleted_one_by_one() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    let large = "x".repeat(1 << 20);
    for i in 0..12 {
        append(&mut files, &[&format!("{i} {large}")]);
    }
    assert_eq!(segments(folder.path()).len(), 3);
    let (mut from, mut seen) = (Position::default(), Vec::new());
    loop {
        let (found, next) = files.read(from, 5).expect("read");
        if found.is_empty() {
            break;
        }
        from = next;
        seen.extend(
            found
                .into_iter()
                .map(|(p, b)| (p, String::from_utf8_lossy(&b[..2]).trim().to_owned())),
        );
    }
    let order: Vec<String> = (0..12).map(|i| i.to_string()).collect();
    assert_eq!(seen.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>(), order);
    let positions: Vec<Position> = seen.into_iter().map(|(p, _)| p).collect();
    files.acknowledge(&positions[..4]);
    assert_eq!(segments(folder.path()).len(), 2, "the first is delivered and deleted");
    append(&mut files, &["more"]);
    let (found, _) = files.read(from, 9).expect("read");
    assert_eq!(found.len(), 1, "a reader at the end sees what comes later");
}

#[test]
fn a_disk_that_fails_once_as_the_next_segment_is_begun_takes_what_comes_later() {
    let folder = tempfile::tempdir().expect("folder");
    let mut files = Files::open(folder.path()).expect("opened");
    let full = "x".repeat(SEGMENT as usize);
    append(&mut files, &[&full]);
    // In the file's place something that cannot be synced.
    let (id, file) = files.active.take().expect("active");
    files.active = Some((id, File::open("/dev/null").expect("there")));
    let mut frame = Vec::new();
    frame::write(b"a", &mut frame);
    for _ in 0..2 {
        files
            .append([frame.as_slice()].into_iter())
            .expect_err("the disk does not sync");
    }
    files.active = Some((id, file));
    append(&mut files, &["a"]);
    append(&mut files, &["b"]);
    assert_eq!(segments(folder.path()).len(), 2);
    drop(files);
    let mut files = Files::open(folder.path()).expect("opened");
    assert_eq!(texts(&mut files), [full.as_str(), "a", "b"]);
}

#[test]
fn a_folder_belongs_to_one_gateway_and_an_unusable_one_says_what_to_do() {
    let folder = tempfile::tempdir().expect("folder");
    let held = Files::open(folder.path()).expect("opened");
    let said = Files::open(folder.path()).expect_err("held").to_string();
    assert!(
        said.contains("another gateway") && said.contains("[gateway] spool"),
        "{said}"
    );
    drop(held);
    let file = folder.path().join("a file");
    fs::write(&file, "").expect("written");
    let said = Files::open(&file).expect_err("no folder").to_string();
    assert!(said.contains("[gateway] spool"), "{said}");
}

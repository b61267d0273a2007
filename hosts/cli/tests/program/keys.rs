//! Key generation that is interrupted in every way.

use crate::common::model::{TOY, write_encoder};
use crate::common::{expect, json_lines, program, str_of, text};
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::Config;
use veilformer::wire::{
    BUNDLE_LEN, Bundle, Expected, Fault, PARAMETERS_LEN, Reader, Sink, read_bundle, write_bundle,
};

const SET: [&str; 4] = ["keygen", "--parameters", "insecure-toy-matrix", "--inference"];
const FILES: [&str; 4] = ["secret.key", "public.key", "evaluation.keys", "evaluation-small.keys"];
const UNFINISHED: [&str; 2] = ["evaluation.keys.unfinished", "evaluation-small.keys.unfinished"];

/// The folder of a model.
fn model() -> &'static Path {
    static MODEL: OnceLock<TempDir> = OnceLock::new();
    let folder = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        write_encoder(folder.path(), TOY);
        folder
    });
    folder.path()
}

/// Arguments of a key generation into `folder`.
fn keygen<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&SET[..], &["--model", str_of(model()), "--out", str_of(folder)], more].concat()
}

/// One generation that nothing interrupted.
struct Whole {
    folder: TempDir,
    files: [Vec<u8>; 4],
    time: Duration,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let (folder, began) = (tempfile::tempdir().unwrap(), Instant::now());
        expect(0, &keygen(folder.path(), &[]));
        let time = began.elapsed();
        let files = FILES.map(|name| fs::read(folder.path().join(name)).unwrap());
        Whole { folder, files, time }
    })
}

impl Whole {
    /// A folder with the secret key alone, and what is given of the evaluation keys of the big ring; of those of the
    /// small one there is a part.
    fn cut(&self, unfinished: Option<&[u8]>) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILES[0]), &self.files[0]).unwrap();
        if let Some(bytes) = unfinished {
            fs::write(folder.path().join(UNFINISHED[0]), bytes).unwrap();
            let part = &self.files[3][..self.files[3].len() / 5];
            fs::write(folder.path().join(UNFINISHED[1]), part).unwrap();
        }
        folder
    }

    /// Resumes in `folder`, wants the same files and nothing else; returns how many keys were kept.
    fn completes(&self, folder: &Path) -> u64 {
        let out = expect(0, &keygen(folder, &["--resume", "--json"]));
        for (name, bytes) in FILES.iter().zip(&self.files) {
            assert!(fs::read(folder.join(name)).unwrap() == *bytes, "{name} differs");
        }
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [".lock", FILES[3], FILES[2], FILES[1], FILES[0]]);
        json_lines(&out)[0]["kept"].as_u64().unwrap()
    }
}

/// Numbers that look random, the same every time.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    }
}

#[test]
fn killed_at_any_moment_and_resumed_the_files_are_the_same() {
    let (time, mut number) = (whole().time.as_micros() as u64, numbers());
    let (mut kills, mut later) = (0, 0);
    while kills < 20 {
        let folder = tempfile::tempdir().unwrap();
        loop {
            let mut child = program()
                .args(keygen(folder.path(), &["--resume"]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_micros(number(time)));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            let begun = |name: &&str| folder.path().join(name).metadata().is_ok_and(|m| m.len() > 0);
            later += u32::from(UNFINISHED.iter().any(begun));
        }
        // The same from the secret key alone, in one go.
        let again = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(FILES[0]), again.path().join(FILES[0])).unwrap();
        expect(0, &keygen(again.path(), &["--resume"]));
        for name in FILES {
            let read = |folder: &TempDir| fs::read(folder.path().join(name)).unwrap();
            assert!(read(&folder) == read(&again), "{name} differs after {kills} kills");
        }
    }
    assert!(later > 0, "no kill came while keys were written");
}

#[test]
fn whatever_is_missing_or_damaged_is_made_again() {
    let whole = whole();
    let keys = &whole.files[2];
    let count = |name: &str| {
        let path = whole.folder.path().join(name);
        json_lines(&expect(0, &["inspect", "--json", str_of(&path)])).len() as u64 - 2
    };
    let (of_big, of_small) = (count(FILES[2]), count(FILES[3]));
    assert_eq!(whole.completes(whole.cut(None).path()), 0);
    let none = whole.completes(whole.cut(Some(&[])).path());
    assert!(0 < none && none < of_small, "{none} of {of_small} from a fifth");
    for len in [1, 100, keys.len() / 3, keys.len() - 1] {
        let kept = whole.completes(whole.cut(Some(&keys[..len])).path()) - none;
        assert!(kept < of_big && (kept > 0) == (len > keys.len() / 4), "{kept} of {of_big} from {len} bytes");
    }
    assert_eq!(whole.completes(whole.cut(Some(keys)).path()), of_big + none);
    assert_eq!(whole.completes(whole.cut(Some(&[&keys[..], b"more"].concat())).path()), of_big + none);
    let mut holes = keys.clone();
    holes[keys.len() / 2..keys.len() / 2 + 5000].fill(0);
    holes[keys.len() / 4] ^= 1;
    let kept = whole.completes(whole.cut(Some(&holes)).path()) - none;
    assert!(kept < of_big && kept > of_big / 2, "{kept} of {of_big}");
    // Zeros at the front are what a power failure leaves.
    let mut front = keys.clone();
    front[..300].fill(0);
    whole.completes(whole.cut(Some(&front)).path());
    // One ring is done, the other not.
    let half = whole.cut(Some(&[]));
    fs::remove_file(half.path().join(UNFINISHED[0])).unwrap();
    fs::write(half.path().join(FILES[2]), keys).unwrap();
    assert_eq!(whole.completes(half.path()), of_big + none);
    // Nothing to do: nothing is touched.
    assert_eq!(whole.completes(whole.folder.path()), of_big + of_small);
}

#[test]
fn an_unfinished_folder_is_refused_by_name() {
    let (whole, out) = (whole(), tempfile::tempdir().unwrap());
    let half = &whole.files[2][..whole.files[2].len() / 2];
    let folder = whole.cut(Some(half));
    let refused = expect(2, &keygen(folder.path(), &[]));
    assert!(refused.contains("--resume") && refused.contains("--force"), "{refused}");
    let shown = expect(0, &["inspect", str_of(folder.path())]);
    assert!(shown.contains("UNFINISHED") && shown.contains("SECRET KEY"), "{shown}");
    assert!(shown.matches("switching key").count() > 3, "{shown}");
    // On the server: no secret key.
    fs::remove_file(folder.path().join(FILES[0])).unwrap();
    let y = out.path().join("y");
    let own = |name: &str| folder.path().join(name);
    for keys in [folder.path().to_owned(), own(UNFINISHED[0]), own(FILES[2])] {
        let args = ["infer", "--keys", str_of(&keys), "--in", "nowhere", "--out", str_of(&y)];
        let message = expect(4, &args);
        assert!(message.contains("did not finish") && message.contains("--resume"), "{message}");
    }
    // Without its secret key it cannot be finished, only replaced.
    let message = expect(4, &keygen(folder.path(), &["--resume"]));
    assert!(message.contains("--force"), "{message}");
    expect(0, &keygen(folder.path(), &["--force"]));
    assert!(fs::read(folder.path().join(FILES[0])).unwrap() != whole.files[0]);
    // A server's folder never gets a secret key.
    fs::remove_file(folder.path().join(FILES[0])).unwrap();
    expect(4, &keygen(folder.path(), &["--resume"]));
    assert!(!folder.path().join(FILES[0]).exists());
}

#[test]
fn resuming_with_other_choices_is_refused() {
    let (whole, folder) = (whole(), tempfile::tempdir().unwrap());
    let cut = whole.cut(Some(&whole.files[2][..1000]));
    // Sixty-four tokens fit both sets.
    let long = tempfile::tempdir().unwrap();
    write_encoder(long.path(), Config { length: 64, ..TOY });
    let other = ["keygen", "--parameters", "n16/matrix", "--inference", "--resume"];
    let other = [&other[..], &["--model", str_of(long.path()), "--out", str_of(cut.path())]].concat();
    assert!(expect(2, &other).contains("insecure-toy-matrix"));
    let training: Vec<&str> =
        keygen(cut.path(), &["--resume"]).into_iter().filter(|arg| *arg != SET[3]).collect();
    assert!(expect(3, &training).contains("another model"));
    // Keys of another secret.
    expect(0, &keygen(folder.path(), &[]));
    fs::copy(folder.path().join(FILES[2]), cut.path().join(UNFINISHED[0])).unwrap();
    assert!(expect(3, &keygen(cut.path(), &["--resume"])).contains("another secret key"));
    fs::remove_file(cut.path().join(UNFINISHED[0])).unwrap();
    fs::copy(folder.path().join(FILES[2]), cut.path().join(FILES[2])).unwrap();
    assert!(expect(2, &keygen(cut.path(), &["--resume"])).contains("another model or secret key"));
}

#[test]
fn two_processes_do_not_make_keys_in_one_folder() {
    let whole = whole();
    let folder = whole.cut(None);
    let lock = OpenOptions::new().create(true).append(true).open(folder.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    for how in ["--resume", "--force"] {
        let message = expect(2, &keygen(folder.path(), &[how]));
        assert!(message.contains("another process"), "{message}");
    }
    assert_eq!(fs::read(folder.path().join(FILES[0])).unwrap(), whole.files[0]);
    drop(lock);
    whole.completes(folder.path());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let whole = whole();
    // Files may grow to half of what is needed.
    let folder = whole.cut(None);
    let blocks = whole.files[2].len() / 2 / 512;
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let output = std::process::Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_veilformer")])
        .args(keygen(folder.path(), &["--resume"]))
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{message}");
    assert!(message.contains("what was made is kept") && message.contains("--resume"), "{message}");
    assert!(!folder.path().join(FILES[2]).exists());
    assert!(whole.completes(folder.path()) > 0);
    // No room at all.
    let folder = whole.cut(None);
    std::os::unix::fs::symlink("/dev/full", folder.path().join(UNFINISHED[0])).unwrap();
    let message = expect(6, &keygen(folder.path(), &["--resume"]));
    assert!(message.contains("No space left"), "{message}");
    fs::remove_file(folder.path().join(UNFINISHED[0])).unwrap();
    whole.completes(folder.path());
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}

#[test]
fn a_missing_key_is_named_before_any_work() {
    let (whole, out) = (whole(), tempfile::tempdir().unwrap());
    let bytes = &whole.files[2];
    let (front, keys) = bytes.split_at((PARAMETERS_LEN + BUNDLE_LEN) as usize);
    let mut announced = Reader::new(&bytes[PARAMETERS_LEN as usize..]);
    let parameters = ParametersLiteral::INSECURE_TOY_MATRIX.check().unwrap();
    let expected = Expected { parameters: &parameters, key: None };
    let (owner, bundle) = read_bundle(&mut announced, &expected).unwrap();
    let first = Reader::new(keys).header().unwrap();
    let rest = &keys[first.object_len() as usize..];
    let mut fewer = Bytes::default();
    let bundle = Bundle { count: bundle.count - 1, bytes: rest.len() as u64, ..bundle };
    write_bundle(&mut fewer, &parameters, owner.key, &bundle).unwrap();
    fs::write(out.path().join(FILES[2]), [&front[..PARAMETERS_LEN as usize], &fewer.0, rest].concat())
        .unwrap();
    fs::write(out.path().join(FILES[3]), &whole.files[3]).unwrap();
    let y = out.path().join("y");
    let keys = ["infer", "--model", str_of(model()), "--keys", str_of(out.path())];
    let message = expect(4, &[&keys[..], &["--in", "nowhere", "--out", str_of(&y)]].concat());
    assert!(message.contains(&format!("missing evaluation key {:?}", first.key_id().unwrap())), "{message}");
    assert!(!y.exists());
}

//! The firmware's scenario on the host: the answer that the device must give.

#[path = "../firmware/src/scenario.rs"]
#[allow(unreachable_pub, reason = "a module of its own crate on the device")]
mod scenario;

use scenario::{CIPHERTEXT, INTEGERS, READINGS_BACK, WORDS};

#[test]
fn the_device_and_the_host_give_the_same_answer() {
    let outcome = scenario::run(&mut vec![0; WORDS], &mut vec![0; INTEGERS], &mut |_| {}).unwrap();
    println!("{:#018x} {:#018x}", outcome.ciphertext, outcome.readings);
    assert_eq!((outcome.ciphertext, outcome.readings), (CIPHERTEXT, READINGS_BACK));
    assert!(outcome.largest >= 3 << 59 && outcome.worst < 1 << 48);
    assert_eq!(outcome.sent, 32 + 3 * 4096 * 4);
    assert_eq!(outcome.peak, 11, "every limb was in use at once");
}

/// The firmware reserves exactly what the scenario needs.
#[test]
fn one_word_less_is_an_error() {
    let step = &mut |_: &'static str| {};
    assert!(scenario::run(&mut vec![0; WORDS - 1], &mut vec![0; INTEGERS], step).is_err());
    assert!(scenario::run(&mut vec![0; WORDS], &mut vec![0; INTEGERS - 1], step).is_err());
}

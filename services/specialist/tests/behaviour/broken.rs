//! A runtime whose runs fail: of one text, or for good.
use crate::stub::{self, Stub, alone, request};
use shoal_specialist::Error;

#[tokio::test]
async fn an_engine_that_can_run_nothing_any_more_ends_and_one_that_a_prompt_breaks_goes_on() {
    // Even the shortest prompt fails of the one; the other breaks on those of over two tokens alone.
    for (fails_over, ends) in [(0, true), (2, false)] {
        let mut stub = Stub::new(2);
        stub.fails_over = fails_over;
        let engine = stub::engine(stub, 1000);
        for _ in 0..20 {
            // Refused, once it has ended.
            let Ok(ticket) = engine.submit(request(&[1, 2, 3], 3, None)) else {
                break;
            };
            let failed = ticket.complete().await.expect_err("it fails");
            assert!(matches!(failed, Error::Broken { .. } | Error::Closing), "{failed:?}");
        }
        if ends {
            engine.stopped().cancelled().await;
            continue;
        }
        let next = engine.submit(request(&[5, 6], 1, None)).expect("it is there");
        assert_eq!(next.complete().await.expect("answered").tokens, alone(&[5, 6], 1));
        assert!(!engine.stopped().is_cancelled());
    }
}

// Root of the library that `build.rs` makes of `native/`: what a library without the standard
// library has to bring along.
#![no_std]

mod native;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { native::c_library::_exit(1) }
}

// The precompiled core names it; nobody calls it, because panics end the process.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

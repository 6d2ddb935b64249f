;; A guest that looks for what any instance before it left behind, and leaves marks of its own wherever it can.
;;
;; Its first dosage says how it ends. It contributes a cell: what it found, 0 for nothing.
;;   1  a mark in memory, low or high          8  memory of another size than `prepare` left
;;   2  a mark in a global                    16  a byte that is not zero anywhere else (looked for where it is asked to)
;;   4  not what `prepare` laid down          32  a byte that is not zero in memory that it grew by
(module
  (memory (export "memory") 64)
  (global $next (mut i32) (i32.const 0x10000))
  (global $a (mut i32) (i32.const 0))
  (global $b (mut i64) (i64.const 0))
  (global $c (mut f32) (f32.const 0))
  (global $d (mut f64) (f64.const 0))
  (global $laid (mut i64) (i64.const 0))
  (data (i32.const 0x600) "a segment")
  (data $passive "a passive segment")

  (func (export "plan") (param i32 i32) (result i32) unreachable)
  (func (export "next") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)

  ;; What the host writes lies between 64 and 128 KiB.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at))

  ;; In every page from 128 KiB on a word; a global; and whatever the state says.
  (func (export "prepare") (param $state i32) (param $bytes i32) (result i32)
    (local $at i32)
    (local.set $at (i32.const 0x20000))
    (loop $pages
      (i32.store offset=16 (local.get $at) (i32.xor (local.get $at) (i32.const 0x5a5a5a5a)))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $pages (i32.lt_u (local.get $at) (i32.const 0x400000))))
    (global.set $laid (i64.const 0x1d1d1d1d1d1d1d1d))
    (memory.init $passive (i32.const 0x700) (i32.const 0) (i32.const 17))
    (if (i32.eq (i32.load8_u (local.get $state)) (i32.const 1)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (i32.load8_u (local.get $state)) (i32.const 2)) (then unreachable))
    ;; All the memory there is, and other bytes than zero in it.
    (if (i32.ge_u (i32.load8_u (local.get $state)) (i32.const 3)) (then
      (block $full (loop $more
        (local.set $at (memory.grow (i32.const 1)))
        (br_if $full (i32.eq (local.get $at) (i32.const -1)))
        (local.set $at (i32.shl (local.get $at) (i32.const 16)))
        (if (i32.eq (i32.load8_u (local.get $state)) (i32.const 3))
          (then (i64.store offset=16 (local.get $at) (i64.const 1)))
          ;; Every other byte: as many stretches as there can be.
          (else
            (memory.fill (local.get $at) (i32.const 1) (i32.const 0x10000))
            (call $thin (local.get $at))))
        (br $more)))))
    (i32.store8 (i32.const 0x400) (i32.const 0))
    (i32.const 0x400))

  (func $thin (param $at i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (i32.const 0x10000)))
    (loop $words
      (i64.store (local.get $at) (i64.const 0x0100010001000100))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $words (i32.lt_u (local.get $at) (local.get $end)))))

  (func $check (param $everywhere i32) (result i32)
    (local $at i32) (local $found i32)
    (if (i32.ne (memory.size) (i32.const 64)) (then (local.set $found (i32.const 8))))
    (local.set $at (i32.const 0x2000))
    (loop $pages
      ;; What the host wrote is ours alone, and is not looked at.
      (if (i32.or (i32.lt_u (local.get $at) (i32.const 0x10000)) (i32.ge_u (local.get $at) (i32.const 0x20000))) (then
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (local.set $found (i32.or (local.get $found) (i32.const 1)))))
        (if (i64.ne (i64.load offset=4088 (local.get $at)) (i64.const 0))
          (then (local.set $found (i32.or (local.get $found) (i32.const 1)))))))
      (if (i32.ge_u (local.get $at) (i32.const 0x20000)) (then
        (if (i32.ne (i32.load offset=16 (local.get $at)) (i32.xor (local.get $at) (i32.const 0x5a5a5a5a)))
          (then (local.set $found (i32.or (local.get $found) (i32.const 4)))))))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $pages (i32.lt_u (local.get $at) (i32.const 0x400000))))
    (if (i32.or (i32.ne (global.get $a) (i32.const 0)) (i64.ne (global.get $b) (i64.const 0)))
      (then (local.set $found (i32.or (local.get $found) (i32.const 2)))))
    (if (i32.or (f32.ne (global.get $c) (f32.const 0)) (f64.ne (global.get $d) (f64.const 0)))
      (then (local.set $found (i32.or (local.get $found) (i32.const 2)))))
    (if (i64.ne (global.get $laid) (i64.const 0x1d1d1d1d1d1d1d1d))
      (then (local.set $found (i32.or (local.get $found) (i32.const 4)))))
    ;; "a segm", and "a passiv" from the passive segment.
    (if (i64.ne (i64.load (i32.const 0x600)) (i64.const 0x6e656d6765732061))
      (then (local.set $found (i32.or (local.get $found) (i32.const 4)))))
    (if (i64.ne (i64.load (i32.const 0x700)) (i64.const 0x7669737361702061))
      (then (local.set $found (i32.or (local.get $found) (i32.const 4)))))
    (if (local.get $everywhere) (then
      (local.set $at (i32.const 0x20000))
      (loop $words
        (if (i32.and
              (i64.ne (i64.load (local.get $at)) (i64.const 0))
              (i32.ne (i32.and (local.get $at) (i32.const 0xff8)) (i32.const 16)))
          (then (local.set $found (i32.or (local.get $found) (i32.const 16)))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $words (i32.lt_u (local.get $at) (i32.const 0x400000))))))
    (local.get $found))

  ;; Marks in every page that is a multiple of `step`, in the globals, over what was laid down, and at both ends of memory.
  (func $leave (param $step i32)
    (local $at i32)
    (local.set $at (i32.const 0x2000))
    (loop $pages
      (if (i32.or (i32.lt_u (local.get $at) (i32.const 0x10000)) (i32.ge_u (local.get $at) (i32.const 0x20000))) (then
        (i64.store (local.get $at) (i64.const -1))
        (i32.store offset=16 (local.get $at) (i32.const -1))
        (i64.store offset=2048 (local.get $at) (i64.const -1))
        (i64.store offset=4088 (local.get $at) (i64.const -1))))
      (local.set $at (i32.add (local.get $at) (i32.mul (local.get $step) (i32.const 4096))))
      (br_if $pages (i32.lt_u (local.get $at) (i32.const 0x400000))))
    (i64.store (i32.const 0x3ffff8) (i64.const -1))
    (memory.fill (i32.const 0x600) (i32.const 0xff) (i32.const 0x200))
    (global.set $a (i32.const -1))
    (global.set $b (i64.const -1))
    (global.set $c (f32.const 1))
    (global.set $d (f64.const 1))
    (global.set $laid (i64.const -1)))

  ;; Takes all memory that it may have; looks at it, and marks it.
  (func $grow (result i32)
    (local $at i32) (local $end i32) (local $found i32)
    (block $full (loop $more
      (local.set $at (memory.grow (i32.const 1)))
      (br_if $full (i32.eq (local.get $at) (i32.const -1)))
      (local.set $at (i32.shl (local.get $at) (i32.const 16)))
      (local.set $end (i32.add (local.get $at) (i32.const 0x10000)))
      (loop $words
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (local.set $found (i32.const 32))))
        (i64.store (local.get $at) (i64.const -1))
        (local.set $at (i32.add (local.get $at) (i32.const 512)))
        (br_if $words (i32.lt_u (local.get $at) (local.get $end))))
      (br $more)))
    (local.get $found))

  (func $recurse (param i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))

  (func (export "contribute") (param $people i32) (param $count i32) (result i32)
    (local $how i32) (local $found i32)
    (local.set $how (i32.load8_u (i32.load offset=8 (local.get $people))))
    (local.set $found (call $check (i32.eq (local.get $how) (i32.const 5))))
    ;; 6: in one page of three, more stretches than the kernel names at once. 1 and 7: everywhere.
    (call $leave (select (i32.const 1) (select (i32.const 3) (i32.const 257) (i32.eq (local.get $how) (i32.const 6)))
      (i32.or (i32.eq (local.get $how) (i32.const 1)) (i32.eq (local.get $how) (i32.const 7)))))
    (if (i32.or (i32.eq (local.get $how) (i32.const 3)) (i32.eq (local.get $how) (i32.const 4)))
      (then (local.set $found (i32.or (local.get $found) (call $grow)))))
    (if (i32.or (i32.eq (local.get $how) (i32.const 1)) (i32.eq (local.get $how) (i32.const 4))) (then unreachable))
    (if (i32.eq (local.get $how) (i32.const 2)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $how) (i32.const 8)) (then (local.set $found (call $recurse (local.get $how)))))
    ;; What an instance that is used twice would find.
    (if (i32.eq (local.get $how) (i32.const 7)) (then
      (drop (call $grow))
      (local.set $found (call $check (i32.const 1)))))
    (i32.store (i32.const 0x400) (i32.const 0x410))
    (i32.store (i32.const 0x404) (i32.const 1))
    (i32.store8 (i32.const 0x410) (i32.const 1))
    (i32.store (i32.const 0x414) (local.get $found))
    (i32.const 0x400)))
